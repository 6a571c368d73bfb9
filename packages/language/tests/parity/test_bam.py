from pathlib import Path

import pytest

from attn_language.official import bam
from core_attn import losses, record
from core_attn.testing import assert_parity, load_case, parity_cases

PATHS = parity_cases("bam", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_recorded_outputs_and_gradients(path):
    case = load_case(path)
    config = bam.config_from(case.config)
    block = config.make_block(0)
    block.load_state_dict(bam.from_official(case.params, config))
    x = case.inputs["x"].requires_grad_()
    with record(block, "routing") as routing:
        y, _ = block(x)
    added = losses(block)
    ((y * case.inputs["cotangent"]).sum() + sum(added.values())).backward()
    probabilities = routing["feed_forward"]
    outputs = {
        "y": y,
        "gate_attn": routing["mixer"],
        "prob_ffn": probabilities,
        "top1_ffn": probabilities.argmax(-1),
        "load_balance": added["feed_forward.balance"][None] / config.balance,
        "z_loss": added["feed_forward.router_z"][None] / config.router_z,
    }
    assert_parity(outputs, case.outputs)
    official = bam.to_official(block.state_dict(), config)
    assert official.keys() == case.params.keys()
    grads = bam.to_official({name: p.grad for name, p in block.named_parameters()}, config)
    assert_parity(grads | {"in.x": x.grad}, case.grads)
