from pathlib import Path

import pytest

from attn_vision import VisionTransformer
from attn_vision.official import vit
from core_attn import use_backend
from core_attn.testing import assert_parity, load_case, parity_cases


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize(
    "path", parity_cases("vit", Path(__file__).parent / "cases"), ids=lambda p: p.stem
)
def test_official_outputs_and_gradients(path, backend):
    case = load_case(path)
    model = VisionTransformer(vit.convert_config(case.config, case.params)).eval()
    model.load_state_dict(vit.convert(case.params))
    assert vit.revert(model.state_dict()).keys() == case.params.keys()

    images = case.inputs["x"].requires_grad_()
    seen = {}
    model.patch_embed.register_forward_hook(lambda m, a, y: seen.update({"tap.patch_embed": y}))
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda m, a, y, i=i: seen.update({f"tap.blocks.{i}": y}))
    if backend:
        with use_backend(backend):
            logits = model(images)
            (logits * case.inputs["cot"]).sum().backward()
    else:
        logits = model(images)
        (logits * case.inputs["cot"]).sum().backward()
    outputs = {name: state.tokens for name, state in seen.items()} | {"logits": logits}
    assert_parity(outputs, case.outputs)

    names = dict(zip(model.state_dict(), vit.revert(model.state_dict()), strict=True))
    grads = {names[name]: p.grad for name, p in model.named_parameters()}
    assert_parity(grads | {"in.x": images.grad}, case.grads)
