from pathlib import Path

import pytest
import torch

from attn_vision.models.msa_conv import odd_kernel, window_products, window_sums
from attn_vision.official import tic
from core_attn import neighborhood_attention
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("tic", Path(__file__).parent / "cases")


def is_layer(case):
    return "input_channel" in case.config


@pytest.mark.parametrize("path", [p for p in CASES if is_layer(load_case(p))], ids=lambda p: p.stem)
def test_official_layer(path):
    case = load_case(path)
    layer, x = tic.layer_from(case.config, case.params).eval(), case.inputs["x"].requires_grad_()
    assert tic.layer_to(layer).keys() == case.params.keys()
    y = layer(x)
    (y * case.inputs["cot"]).sum().backward()
    assert_parity({"y": y}, case.outputs)
    grads = tic.renamed_to_official({name: p.grad for name, p in layer.named_parameters()})
    assert_parity(grads | {"in.x": x.grad}, case.grads)


def by_windows(q, k, v, kernel, dilation, scale):
    dots = window_products(q, k, kernel, dilation)
    weights = (scale * dots).softmax(1)
    return {"dots": dots, "attn": weights, "y": window_sums(weights, v, kernel, dilation)}


def by_core(q, k, v, kernel, dilation, scale):
    tokens = [x.flatten(2).transpose(1, 2)[:, None] for x in (q, k, v)]
    halo = tuple(size // 2 for size in kernel)
    y = neighborhood_attention(
        *tokens, tuple(q.shape[2:]), halo=halo, dilation=dilation, scale=scale
    )
    return {"y": y[:, 0].transpose(1, 2).unflatten(2, q.shape[2:])}


@pytest.mark.parametrize("way", [by_windows, by_core])
@pytest.mark.parametrize(
    "path", [p for p in CASES if not is_layer(load_case(p))], ids=lambda p: p.stem
)
def test_official_operator(path, way):
    case, c = load_case(path), load_case(path).config
    q, k, v = (case.inputs[name].requires_grad_() for name in "qkv")
    size = c["kernel_size"]
    kernel = odd_kernel(tuple(size) if isinstance(size, list) else size)
    outputs = way(q, k, v, kernel, c["dilation"], q.shape[1] ** -0.5)
    (outputs["y"] * case.inputs["cot"]).sum().backward()
    assert_parity(outputs, {name: case.outputs[name] for name in outputs})
    assert_parity({f"in.{n}": x.grad for n, x in zip("qkv", (q, k, v), strict=True)}, case.grads)


def test_gradients_in_float64():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 3, 4, dtype=torch.float64).requires_grad_().unbind(0)
    assert torch.autograd.gradcheck(lambda *x: by_windows(*x, (3, 1), 2, 0.7)["y"], (q, k, v))
