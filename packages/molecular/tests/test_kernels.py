import pytest
import torch
from torch.nn import functional as F

from attn_molecular.kernels import band_product, rms_norm, rows

pytestmark = pytest.mark.skipif(
    rows.KERNEL.missing() is not None, reason=f"no C kernel: {rows.KERNEL.missing()}"
)


def agree(kernel, definition, inputs):
    """Outputs, gradients, and the gradients of a function of the gradients."""
    results = []
    for function in (kernel, definition):
        given = [x.clone().requires_grad_() for x in inputs]
        out = function(*given)
        torch.manual_seed(1)
        weight = torch.randn_like(out).requires_grad_()
        first = torch.autograd.grad(out, given, weight, create_graph=True)
        along = sum((x * torch.randn_like(x)).sum() for x in first)
        results.append([out, *first, *torch.autograd.grad(along, [weight, *given])])
    for ours, theirs in zip(*results, strict=True):
        scale = float(theirs.detach().abs().max().clamp(min=1))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("shape", [(1, 3), (5, 16), (70, 33), (2, 3, 64)])
def test_norms_agree_to_the_second_derivative(shape):
    inputs = [torch.randn(shape), torch.rand(shape[-1]) + 0.5]
    agree(
        lambda x, w: rms_norm(x, w, 1e-6),
        lambda x, w: F.rms_norm(x, w.shape, w, 1e-6),
        inputs,
    )


@pytest.mark.parametrize(
    "edges, band, functions, dim", [(1, 1, 1, 1), (7, 5, 12, 33), (50, 9, 40, 200)]
)
def test_band_products_agree_to_the_second_derivative(edges, band, functions, dim):
    first = torch.randint(0, functions - band + 1, (edges,))
    place = first[:, None] + torch.arange(band)

    def definition(x, w):
        return x.new_zeros(edges, functions).scatter_add(1, place, x) @ w

    agree(
        lambda x, w: band_product(x, w, first),
        definition,
        [torch.randn(edges, band), torch.randn(functions, dim)],
    )
