"""python -m benchmarks.windows [--threads N] [--seconds S]: MSA-Conv and spectral gates.

MSA-Conv beside its formula on unfolded maps, at growing sizes; the gate beside plain FFTs, and
beside the attention of 4 heads that it stands for, at 256, 1,024 and 4,096 tokens.
"""

import torch
from jsonargparse import auto_cli
from torch import Tensor
from torch.nn import functional as F

from attn_vision.models.msa_conv import MSAConv2d
from attn_vision.models.spectral_gate import SpectralGate
from attn_vision.models.tokens import TokenState
from benchmarks.ratios import compare
from core_attn import attention


def unfolded(layer: MSAConv2d, x: Tensor) -> Tensor:
    """One head on windows laid out by unfold."""
    rows, columns = layer.kernel
    q, k, v = layer.qkv(x.movedim(1, -1)).movedim(-1, 1).chunk(3, 1)
    k, v = (
        F.unfold(part, layer.kernel, 1, (rows // 2, columns // 2)).view(
            len(x), x.shape[1], rows * columns, *x.shape[2:]
        )
        for part in (k, v)
    )
    weights = ((q[:, :, None] * k).sum(1) * x.shape[1] ** -0.5).softmax(1)
    return (weights[:, None] * v).sum(2)


def official_gate(gate: SpectralGate, x: Tensor) -> Tensor:
    """The gate as the official code has it."""
    spectrum = torch.fft.rfft2(x.unflatten(1, gate.grid), dim=(1, 2), norm="ortho")
    spectrum = spectrum * torch.view_as_complex(gate.complex_weight)
    return torch.fft.irfft2(spectrum, s=gate.grid, dim=(1, 2), norm="ortho").flatten(1, 2)


def main(threads: int = 1, seconds: float = 5.0) -> None:
    """One forward pass without gradients."""
    cases = {}
    with torch.inference_mode():
        layer = MSAConv2d(64, 1, 3)
        for side in (32, 64, 128, 256):
            x = torch.randn(1, 64, side, side)
            cases[f"MSA-Conv, {side} px"] = (
                lambda x=x: layer(x),
                lambda x=x: unfolded(layer, x),
            )
        for side, dim in ((14, 384), (28, 128), (56, 64)):
            gate, x = SpectralGate(dim, (side, side)), torch.randn(4, side * side, dim)
            state = TokenState(x, gate.grid)
            cases[f"gate, {side}x{side} of {dim}"] = (
                lambda gate=gate, state=state: gate(state),
                lambda gate=gate, x=x: official_gate(gate, x),
            )
        for side in (16, 32, 64):
            gate, x = SpectralGate(64, (side, side)), torch.randn(1, side * side, 64)
            state, heads = TokenState(x, gate.grid), x.unflatten(-1, (4, 16)).transpose(1, 2)
            cases[f"gate beside attention, {side}x{side}"] = (
                lambda gate=gate, state=state: gate(state),
                lambda heads=heads: attention(heads, heads, heads),
            )
        compare(cases, threads=threads, seconds=seconds)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
