import pytest
import torch

from core_attn.testing import assert_parity


@pytest.fixture
def agrees():
    """Runs a model on a case's images and compares outputs, block by block, and gradients."""

    def check(case, model, output="logits", cotangent="cot"):
        images = case.inputs["x"].requires_grad_()
        seen, hooks = {}, [("tap.patch_embed", model.patch_embed)]
        hooks += [(f"tap.blocks.{i}", block) for i, block in enumerate(model.blocks)]
        for name, part in hooks:
            part.register_forward_hook(lambda m, a, y, name=name: seen.update({name: y.tokens}))
        logits = model(images)
        (logits * case.inputs[cotangent]).sum().backward()
        assert_parity(seen | {output: logits}, case.outputs)
        grads = {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in model.named_parameters()
        }
        assert_parity(grads | {"in.x": images.grad}, case.grads)

    return check
