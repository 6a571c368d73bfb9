from pathlib import Path

import pytest
import torch

from attn_vision.models.daff import DynamicAggregationFeedForward
from attn_vision.models.head_tokens import HeadInteractedAttention
from attn_vision.models.stems import SequentialOverlapEmbed
from attn_vision.models.tokens import TokenState
from attn_vision.official import dhvt
from core_attn.testing import assert_parity, load_case, parity_cases


def part(case):
    """The layer that a case's configuration describes."""
    c = case.config
    if "hidden_features" in c:
        return DynamicAggregationFeedForward(
            c["in_features"], c["hidden_features"], c["kernel_size"]
        )
    if "num_heads" in c:
        return HeadInteractedAttention(c["dim"], c["num_heads"], qkv_bias=c["qkv_bias"])
    channels = case.params["pre_affine.alpha"].shape[1]
    return SequentialOverlapEmbed(channels, c["embed_dim"], c["patch_size"])


@pytest.mark.parametrize(
    "path", parity_cases("dhvt", Path(__file__).parent / "cases"), ids=lambda p: p.stem
)
def test_official_outputs_and_gradients(path, agrees):
    case = load_case(path)
    if "depth" in case.config:
        config = dhvt.config_from(case.config, case.params)
        model = config.build().eval()
        model.load_state_dict(dhvt.from_official(case.params, config))
        assert dhvt.to_official(model.state_dict(), config).keys() == case.params.keys()
        return agrees(case, model)
    layer = part(case).train(case.config.get("train", False))
    layer.load_state_dict(case.params)
    seen = {}
    for name, inner in layer.named_children():
        inner.register_forward_hook(lambda m, a, y, name=name: seen.update({f"tap.{name}": y}))
    x = case.inputs["x"].requires_grad_()
    if x.dim() == 4:
        y = layer(x).tokens
    else:
        side = round((x.shape[1] - 1) ** 0.5)
        y = layer(TokenState(x, (side, side), prefix=1))
    (y * case.inputs["cot"]).sum().backward()
    state = {f"state_after.{name}": value for name, value in layer.named_buffers()}
    assert_parity(seen | state | {"y": y}, case.outputs)
    grads = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in layer.named_parameters()
    }
    assert_parity(grads | {"in.x": x.grad}, case.grads)
