from pathlib import Path

import pytest

from attn_language.models.uoe import Selection
from attn_language.official import uoe
from core_attn import record
from core_attn.testing import assert_parity, load_case, parity_cases

PATHS = parity_cases("uoe", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_official_outputs_and_gradients(path):
    case = load_case(path)
    config = uoe.config_from(case.config, case.params)
    block = config.make_block(0)
    ours = uoe.from_official(case.params, config)
    _, unexpected = block.load_state_dict(ours, strict=False)
    assert not unexpected
    is_attention = "W_q.weight.0" in case.params
    layer, norm = (block.mixer, block.norm1) if is_attention else (block.feed_forward, block.norm2)
    x = case.inputs["x"].requires_grad_()
    with record(layer, "scores") as seen:
        chosen = layer.router(x).index
    wanted = case.outputs["selected"].transpose(0, 1)
    # Among scores that are equal (0, or 1 in a batch of one) the official choice is undefined.
    gate = seen["router"].transpose(1, 2)
    assert_parity(
        {"chosen": gate.gather(2, chosen).sort(-1).values},
        {"chosen": gate.detach().gather(2, wanted).sort(-1).values},
    )
    layer.router.forward = lambda x, valid: Selection(wanted, None, None)
    y = norm(x + layer(x)[0])
    (y * case.inputs["cotangent"]).sum().backward()
    outputs = {"y": y, "gate": seen["router"], "selected": wanted.transpose(0, 1)}
    assert_parity(outputs, case.outputs)
    named = {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
    grads = uoe.to_official(named, is_attention)
    assert grads.keys() | {"in.x"} == case.grads.keys()  # the gate gets no gradient
    assert_parity(grads | {"in.x": x.grad}, case.grads)
