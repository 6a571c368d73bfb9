from pathlib import Path

import pytest
import torch

from attn_language.models.rcmha import next_segment
from attn_language.official import rcmha
from core_attn import record
from core_attn.testing import assert_parity, load_case, parity_cases

PATHS = parity_cases("rcmha", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_official_outputs_and_gradients(path):
    case = load_case(path)
    params = rcmha.whole_tables(case.params, case.config["P"])
    config = rcmha.config_from(case.config, params)
    is_model = "x1" in case.inputs
    module = config.build() if is_model else config.make_block(0).mixer
    module.load_state_dict(rcmha.from_official(params, config))
    grads = {}
    if is_model:
        first, state = module.step(case.inputs["x1"].T)
        second, state = module.step(case.inputs["x2"].T, next_segment(state, config))
        (first.sum() + second.square().sum()).backward()
        outputs = {"logits1": first.transpose(0, 1), "logits2": second.transpose(0, 1)}
        tokens = case.inputs["x2"].shape[0]
        for index, read in enumerate(state.blocks):
            outputs[f"mem2.{index}"] = read.inputs[:, -tokens:].transpose(0, 1)
    else:
        x = case.inputs["x"].requires_grad_()
        whole = x
        if "mem" in case.inputs:
            whole = torch.cat((case.inputs["mem"], x))
        with record(module, "pattern") as seen:
            y = module(whole.transpose(0, 1), len(x), len(whole) - len(x)).transpose(0, 1)
        (y * case.inputs["cotangent"]).sum().backward()
        outputs = {"y": y, "attn": seen[""].permute(2, 3, 0, 1)}
        grads = {"in.x": x.grad}
    assert_parity(outputs, case.outputs)
    named = {name: p.grad for name, p in module.named_parameters()}
    grads |= rcmha.to_official(named, config)
    expected = {}
    for name, grad in case.grads.items():
        whole, bracket, rows = name.partition("[")
        expected[name] = grad
        if bracket:
            low, high = map(int, rows.rstrip("]").split(":"))
            grads[name] = grads[whole][low:high]
    assert_parity(grads, expected)
