from pathlib import Path

import pytest
import torch

from attn_vision.models.spectral_gate import (
    SpectralGate,
    filter_by_fft,
    filter_by_products,
    hermitian,
    transforms,
)
from attn_vision.models.tokens import TokenState
from attn_vision.official import spectformer
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("spectformer", Path(__file__).parent / "cases")
GATES = [path for path in CASES if "complex_weight" in load_case(path).params]


def gate_of(case):
    """A gate whose number of columns the tokens tell: its weight fits two."""
    weight = case.params["complex_weight"]
    grid = (weight.shape[0], case.inputs["x"].shape[1] // weight.shape[0])
    gate = SpectralGate(weight.shape[2], grid)
    gate.load_state_dict(case.params)
    return gate


def by_products(x, weight):
    """As in compiled models."""
    matrices = [m.to(x.dtype) for m in transforms(x.shape[1:3])]
    return filter_by_products(x, hermitian(weight, x.shape[2]), matrices)


@pytest.mark.parametrize("way", [filter_by_fft, by_products])
@pytest.mark.parametrize("path", GATES, ids=lambda p: p.stem)
def test_official_gates(path, way, monkeypatch):
    monkeypatch.setattr("attn_vision.models.spectral_gate.filter_by_fft", way)
    case = load_case(path)
    gate, x = gate_of(case), case.inputs["x"].requires_grad_()
    y = gate(TokenState(x, gate.grid))
    (y * case.inputs["cot"]).sum().backward()
    assert_parity({"y": y}, case.outputs)
    grads = {"complex_weight": gate.complex_weight.grad, "in.x": x.grad}
    assert_parity(grads, case.grads)


@pytest.mark.parametrize("path", [p for p in CASES if p not in GATES], ids=lambda p: p.stem)
def test_official_outputs_and_gradients(path):
    case = load_case(path)
    config = spectformer.config_from(case.config, case.params)
    model = config.build().eval()
    model.load_state_dict(spectformer.from_official(case.params, config))
    official = spectformer.to_official(model.state_dict(), config)
    assert official.keys() == case.params.keys()

    parts = {}
    if hasattr(model, "blocks"):
        parts = {f"tap.blocks.{i}": block for i, block in enumerate(model.blocks)}
        parts["tap.patch_embed"] = model.patch_embed
    else:
        for s, stage in enumerate(model.stages, 1):
            parts[f"tap.patch_embed{s}"] = stage.embed
            parts |= {f"tap.block{s}.{b}": block for b, block in enumerate(stage.blocks)}
    seen = {}
    for name, part in parts.items():
        part.register_forward_hook(lambda m, a, y, name=name: seen.update({name: y.tokens}))
    images = case.inputs["x"].requires_grad_()
    logits = model(images)
    (logits * case.inputs["cot"]).sum().backward()
    assert_parity(seen | {"logits": logits}, case.outputs)
    grads = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    assert_parity(spectformer.to_official(grads, config) | {"in.x": images.grad}, case.grads)
