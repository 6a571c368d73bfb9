from pathlib import Path

import pytest
import torch

from attn_vision.official import halonet
from core_attn import use_backend
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("halonet", Path(__file__).parent / "cases")


def assert_close(actual, expected, is_net):
    """Whole nets amplify rounding: what timm recorded in float32 is up to 2.4e-4 of the largest
    entry off the same gradient in float64."""
    for name, want in expected.items():
        atol = 1e-3 * float(want.abs().max()) if is_net else 1e-5
        assert_parity(actual, {name: want}, atol=max(atol, 1e-5))


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_official_outputs_and_gradients(path, backend):
    case = load_case(path)
    x, seen = case.inputs["x"].requires_grad_(), {}
    if "blocks" in case.config:
        config = halonet.config_from(case.config, case.params)
        model = config.build().eval()
        model.load_state_dict(halonet.from_official(case.params, config))
        again = halonet.to_official(model.state_dict(), config)
        for s, stage in enumerate(model.stages):
            for b, block in enumerate(stage.blocks):
                name = f"tap.stages.{s}.{b}"
                block.register_forward_hook(lambda m, a, y, name=name: seen.update({name: y}))
        stem = model.stages[0].embed
        stem.register_forward_hook(lambda m, a, y: seen.update({"tap.stem": y}))
    else:
        model = halonet.layer_from(case.config, case.params).eval()
        config, again = model, halonet.layer_to(model)
    assert again.keys() == case.params.keys()
    for name, value in again.items():
        torch.testing.assert_close(value, case.params[name], rtol=0, atol=0)

    with use_backend(backend, "neighborhood_attention") if backend else torch.enable_grad():
        y = model(x)
        (y * case.inputs["cot"]).sum().backward()
    if "tap.pos_embed" in case.outputs:
        seen["tap.pos_embed"] = relative_logits(model, x)
    assert_close(seen | {"y": y, "logits": y}, case.outputs, "blocks" in case.config)

    ours = {name: p.grad for name, p in model.named_parameters()}
    ours |= {name: torch.zeros_like(b) for name, b in model.named_buffers()}
    if "blocks" in case.config:
        grads = halonet.to_official(ours, config)
    else:
        grads = halonet._official_layer(ours, model.num_heads)
    assert_close(grads | {"in.x": x.grad}, case.grads, "blocks" in case.config)


def relative_logits(layer, x):
    """The positional logits that timm's layer adds, (batch * heads, blocks, queries, slots)."""
    from core_attn.ops._neighborhood_attention import call, reference
    from core_attn.ops._neighborhood_attention.operator import _check

    q = layer.q(x[:, :, :: layer.stride, :: layer.stride].flatten(2).transpose(1, 2))
    q = q.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
    zeros = q.new_zeros(*q.shape[:2], x.shape[2] * x.shape[3], q.shape[-1])
    scores = call.NeighborhoodScores(
        block=layer.block, halo=layer.halo, stride=layer.stride,
        relative=(layer.height, layer.width),
    )  # fmt: skip
    checked = _check(q, zeros, zeros, tuple(x.shape[2:]), scores, None, None, 0.0)
    return reference.scores(checked).flatten(0, 1)
