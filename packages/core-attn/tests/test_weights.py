import argparse

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from core_attn.weights import copy_weights, read_weights

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def prefixed(prefix):
    return {f"{prefix}{key}": x for key, x in STATE.items()}


WRAPPED = {
    "bare": STATE,
    "model": {"model": STATE, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
    "averaged first": {"model": prefixed("wrong."), "model_ema": STATE},
    "no average kept": {"model": STATE, "model_ema": None},
    "data parallel": {"state_dict": prefixed("module.")},
    "compiled": {"model": prefixed("_orig_mod.")},
    "compiled data parallel": prefixed("module._orig_mod."),
    "compiled inside": {
        "a._orig_mod.weight": STATE["a.weight"],
        "a._orig_mod.bias": STATE["a.bias"],
    },
    "twice": {"state_dict": {"model": STATE}},
    "with a counter": STATE | {"steps": 7},
    "of these packages": {
        "pytorch-lightning_version": "2.6",
        "state_dict": prefixed("model.") | {"metric.sum": torch.zeros(1)},
        "config": {"model": {"class_path": "x"}},
    },
}


@pytest.mark.parametrize("case", WRAPPED)
def test_weights_are_found_whatever_wraps_them(case, tmp_path):
    torch.save(WRAPPED[case], tmp_path / "file.pth")
    state, source = read_weights(tmp_path / "file.pth")
    assert state.keys() == STATE.keys() and source.startswith(str(tmp_path / "file.pth"))
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)


def test_a_submodule_called_module_keeps_its_name(tmp_path):
    torch.save({"head.module.weight": torch.ones(1), "a": torch.ones(1)}, tmp_path / "x.pth")
    assert set(read_weights(tmp_path / "x.pth").state) == {"head.module.weight", "a"}


def test_safetensors_and_folders_are_read(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert read_weights(path).state.keys() == STATE.keys()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"epoch": 3, "lr": 0.1}, "no tensors by name in it; it holds epoch, lr"),
        ([torch.ones(1)], "it holds a list"),
        (nn.Linear(1, 1), "cannot be read"),
    ],
)
def test_a_file_without_weights_is_refused(content, said, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=said):
        read_weights(tmp_path / "x.pth")


def test_a_file_that_is_cut_or_missing_is_refused(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(data[:-5])
    with pytest.raises(ValueError, match="cannot be read"):
        read_weights(tmp_path / "x.safetensors")
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    cut = (tmp_path / "old.pth").read_bytes()[:-40]
    for content in (b"", b"abc", b"(", b"K", b"M", b"some text, long enough", cut):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read: it is cut, no file of weights"):
            read_weights(tmp_path / "x.pth")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_weights(tmp_path / "y.pth")
    with pytest.raises(FileNotFoundError, match="a folder without model.safetensors"):
        read_weights(tmp_path)


def test_what_fits_is_copied_and_the_rest_is_said():
    model = nn.ModuleDict({"a": nn.Linear(3, 2), "head": nn.Linear(2, 5)})
    before = model["head"].weight.clone()
    done = copy_weights(model, STATE | {"head.weight": torch.ones(7, 2), "old": torch.ones(1)})
    assert done.copied == ("a.weight", "a.bias") and done.missing == ("head.bias",)
    assert done.reshaped == {"head.weight": ((7, 2), (5, 2))} and done.unused == ("old",)
    assert torch.equal(model["a"].weight, STATE["a.weight"])
    assert torch.equal(model["head"].weight, before)
    assert str(done) == (
        "2 of 4 weights taken over; left as initialized: head.weight (7, 2) instead of (5, 2), "
        "head.bias (missing); not used: old"
    )


def test_a_file_of_which_nothing_fits_is_refused():
    with pytest.raises(ValueError, match=r"no weight fits Linear: it has weight \(9, 9\), bias"):
        copy_weights(nn.Linear(9, 9), STATE)


def test_another_models_file_is_refused_by_what_differs():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = model.state_dict()["1.bias"].clone()
    other = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)).state_dict()
    says = (
        r"only 1 of 4 weights fit Sequential: it has 0.weight \(4, 3\), .*; given are 0.weight \(8"
    )
    with pytest.raises(ValueError, match=says):
        copy_weights(model, other)
    assert model.state_dict()["1.bias"].equal(before)
