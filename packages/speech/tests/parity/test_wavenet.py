from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from attn_speech.official import wavenet as official
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("wavenet", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_official_outputs_losses_and_gradients(path):
    case = load_case(path)
    rules, given = case.config, case.inputs
    config = official.config_from(
        rules["model"], levels=rules["num_classes"], log_scale_min=rules["log_scale_min"]
    )
    model = config.build()
    model.load_state_dict(official.from_official(case.params, config))
    model.eval()
    x, target = _input(given, config)
    mels = given["c"].clone().requires_grad_() if "c" in given else None
    y = model(x, mels, given.get("g"))
    cost = config.output.cost(y[..., :-1], target[:, 1:])
    cost.mean().backward()

    actual = {
        "y": y, "loss_per_sample": cost[..., None], "loss": cost.mean(),
        "receptive_field": torch.tensor(config.receptive_field),
    }  # fmt: skip
    if mels is not None:
        actual["c_upsampled"] = model.conditions(mels, x.shape[-1])
    if "incremental_probs" in case.outputs:
        actual["incremental_probs"] = y.softmax(1)
    wanted = dict(case.outputs)
    wanted["receptive_field"] = wanted["receptive_field"].to(torch.int64)
    assert_parity(actual, wanted, rtol=1e-4, atol=1e-5)

    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    grads = official.to_official(grads, config)
    grads["in.x"] = x.grad.sum(1) if config.onehot else x.grad
    if mels is not None:
        grads["in.c"] = mels.grad
    assert_parity(grads, case.grads, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
@pytest.mark.parametrize("parametrized", [False, True])
def test_weights_go_to_the_official_keys_and_back(path, parametrized):
    case = load_case(path)
    config = official.config_from(case.config["model"])
    ours = official.from_official(case.params, config)
    back = official.to_official(ours, config, parametrized=parametrized)
    assert parametrized or back.keys() == case.params.keys()
    again = official.from_official({"state_dict": back, "global_step": 3}, config)
    assert again.keys() == ours.keys() and all(again[key].equal(ours[key]) for key in ours)


def test_defaults_are_those_of_the_official_constructor():
    config = official.config_from(
        {"scalar_input": True, "out_channels": 30, "cin_channels": 80, "gin_channels": 16,
         "n_speakers": 7, "upsample_conditional_features": True, "cin_pad": 2}
    )  # fmt: skip
    assert (config.pad, config.speakers, config.speaker_dim) == (0, 0, 16)
    assert (config.layers, config.stacks, config.scales) == (20, 2, (4, 4, 4, 4))
    with pytest.raises(ValueError, match="output_distribution must be one of"):
        official.config_from({"scalar_input": True, "output_distribution": "Beta"})
    with pytest.raises(ValueError, match="mode must be nearest"):
        official.config_from(
            {"cin_channels": 80, "upsample_conditional_features": True,
             "upsample_params": {"mode": "bilinear"}}
        )  # fmt: skip


def _input(given, config):
    if not config.onehot:
        return given["x"].clone().requires_grad_(), given["x"][:, 0]
    index = given["x_index"].long()
    hot = F.one_hot(index, config.out_channels).transpose(1, 2).float()
    return hot.requires_grad_(), index
