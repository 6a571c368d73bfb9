from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from attn_language.official import spikegpt
from core_attn import record, wkv
from core_attn.testing import assert_parity, load_case, parity_cases

PATHS = parity_cases("spikegpt", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_official_outputs_and_gradients(path):
    case = load_case(path)
    check_wkv(case) if "k" in case.inputs else check_model(case)


def check_wkv(case):
    leaves = {name: x.requires_grad_() for name, x in case.inputs.items() if name != "cotangent"}
    decay = -leaves["time_decay"].exp()
    y, _ = wkv(leaves["k"], leaves["v"], log_decay=decay, bonus=leaves["time_first"])
    (y * case.inputs["cotangent"]).sum().backward()
    assert_parity({"y": y}, case.outputs)
    assert_parity({f"in.{name}": x.grad for name, x in leaves.items()}, case.grads)


def check_model(case):
    config = spikegpt.config_from(case.config, case.params)
    model = config.build().eval()
    model.load_state_dict(spikegpt.from_official(case.params, config))
    names = {"mixer": "lif1", "feed_forward": "lif2"}
    hidden = []
    model.norm.register_forward_pre_hook(lambda module, args: hidden.append(args[0]))
    with record(model, "spikes", layers="blocks.*") as seen:
        logits = model(case.inputs["idx"])
    spikes = {}
    for layer, train in seen.items():
        _, index, part = layer.split(".")
        spikes[f"spikes.blocks.{index}.{names[part]}"] = train.to(torch.uint8)
    loss = F.cross_entropy(logits.flatten(0, 1), case.inputs["targets"].flatten())
    loss.backward()
    with torch.no_grad():
        _, state = model.step(case.inputs["idx"])
    outputs = {"logits": logits, "loss": loss[None], "hidden": hidden[0]} | spikes
    for index, block in enumerate(state.blocks):
        for name, branch in zip(("lif1", "lif2"), block, strict=True):
            outputs[f"membrane_final.blocks.{index}.{name}"] = branch.membrane
    assert_parity(outputs, case.outputs)

    official = spikegpt.to_official(model.state_dict(), config)
    assert official.keys() == case.params.keys()
    grads = spikegpt.to_official({n: p.grad for n, p in model.named_parameters()}, config)
    assert_parity(grads, case.grads)
