import json

import pytest
import torch
from safetensors.torch import save_file

from core_attn.testing import assert_parity, load_case, parity_cases


def write(path, **tensors):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name.replace("__", "."): x for name, x in tensors.items()},
        path,
        metadata={"config": json.dumps({"depth": 2}), "notes": "n"},
    )
    return path


def test_a_case_is_split_by_prefix(tmp_path):
    file = write(
        tmp_path / "a.safetensors",
        in__x=torch.ones(2),
        param__w=torch.ones(1),
        out__y=torch.ones(3),
    )
    case = load_case(file)
    assert (case.name, case.config, case.notes) == ("a", {"depth": 2}, "n")
    assert list(case.inputs) == ["x"] and list(case.params) == ["w"] and list(case.outputs) == ["y"]


def test_committed_and_outside_cases_are_listed_once(tmp_path, monkeypatch):
    write(tmp_path / "cases/vit/a.safetensors", in__x=torch.ones(1))
    write(tmp_path / "parity/vit/a.safetensors", in__x=torch.ones(1))
    write(tmp_path / "parity/vit/b.safetensors", in__x=torch.ones(1))
    monkeypatch.setenv("ATTN_PARITY", str(tmp_path / "parity"))
    assert [path.stem for path in parity_cases("vit", tmp_path / "cases")] == ["a", "b"]
    monkeypatch.setenv("ATTN_PARITY", str(tmp_path / "absent"))
    assert [path.stem for path in parity_cases("vit", tmp_path / "cases")] == ["a"]


def test_faults_are_all_named(tmp_path):
    want = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}
    with pytest.raises(AssertionError, match=r"(?s)a: missing.*b: Tensor-likes"):
        assert_parity({"b": torch.zeros(2), "c": torch.ones(2)}, want)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no parity file"):
        load_case(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="'other.x' is none of in, param, out, grad"):
        load_case(write(tmp_path / "x.safetensors", other__x=torch.ones(1)))
