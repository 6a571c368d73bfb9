"""The convolutions before the encoder and after the decoder, and the decoder's pre-net."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core_attn import Dropout, dropout


class ConvStack(nn.Module):
    """Convolutions over time, each with batch norm, a non-linearity and dropout.

    Args:
        channels: of the input and of every layer.
        kernel: width, odd.
        activation: after every layer, or after all but the last.
        last_activation: whether the last layer has it too.
        batch_norm: whether layers are normalized.
        dropout: probability of dropping an output, in training.

    Raises:
        ValueError: the kernel is even.

    Source: Shen et al., 2018, arXiv 1712.05884, sections 2.2 and 2.3.
    """

    def __init__(
        self,
        channels: Sequence[int],
        kernel: int,
        activation: type[nn.Module],
        *,
        last_activation: bool,
        batch_norm: bool,
        dropout: float,
    ):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"a kernel must be odd to keep the length, got {kernel}")
        self.convs = nn.ModuleList(
            nn.Conv1d(into, out, kernel, padding=kernel // 2, bias=False)
            for into, out in pairwise(channels)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(out) if batch_norm else nn.Identity() for out in channels[1:]
        )
        last = len(channels) - 2
        self.activations = nn.ModuleList(
            activation() if last_activation or i < last else nn.Identity() for i in range(last + 1)
        )
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch time channels"],
        keep: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time out"]:
        """Convolves; with `keep`, what it does not keep is zero before every convolution."""
        x = x.transpose(1, 2)
        layers = zip(self.convs, self.norms, self.activations, strict=True)
        for conv, norm, activation in layers:
            if keep is not None:
                x = x.masked_fill(~keep[:, None], 0.0)
            x = self.dropout(activation(norm(conv(x))))
        return x.transpose(1, 2)


class PrenetNoise:
    """The dropout of the decoder's pre-net outside training: one generator for each text.

    A row's draws depend on its seed and on the number of frames drawn before, and on nothing else:
    not on the rest of the batch, and not on how many frames are drawn at once.

    Args:
        seeds: one for each row.
        units: of all layers of the pre-net together.
        rate: probability of dropping one.

    Example:
        >>> one, two = PrenetNoise([7], 3, 0.5), PrenetNoise([5, 7], 3, 0.5)
        >>> bool((one.draw(4) == two.draw(4)[1:]).all())
        True
    """

    def __init__(self, seeds: Sequence[int], units: int, rate: float):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.units, self.rate = units, rate

    def draw(self, frames: int) -> Float[Tensor, "rows frames units"]:
        """The factors of the next frames: 0, or 1 / (1 - rate)."""
        rows = [
            torch.stack([torch.rand(self.units, generator=g) for _ in range(frames)])
            for g in self.generators
        ]
        return (torch.stack(rows) >= self.rate) / (1 - self.rate)

    def select(self, rows: Sequence[int]) -> None:
        """Keeps these rows only, in this order."""
        self.generators = [self.generators[row] for row in rows]


class DecoderPrenet(nn.Module):
    """Linear layers whose dropout acts outside training too.

    Args:
        dim: features of a frame.
        layers: how many.
        units: width of each.
        dropout: probability of dropping a unit, always.

    Raises:
        ValueError: the dropout is not in [0, 1).

    Source: Shen et al., 2018, arXiv 1712.05884, section 2.3.
    """

    def __init__(self, dim: int, layers: int, units: int, dropout: float):
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"decoder_prenet_dropout must be in [0, 1), got {dropout}")
        self.layers = nn.ModuleList(
            nn.Linear(dim if i == 0 else units, units) for i in range(layers)
        )
        self.units, self.dropout = units, dropout

    def noise(self, seeds: Sequence[int]) -> PrenetNoise | None:
        """Where dropout outside training comes from; None where it is 0."""
        if not self.layers or not self.dropout:
            return None
        return PrenetNoise(seeds, len(self.layers) * self.units, self.dropout)

    def forward(
        self,
        x: Float[Tensor, "batch frames dim"],
        factors: Float[Tensor, "batch frames all_units"] | None = None,
    ) -> Float[Tensor, "batch frames units"]:
        """Applies the layers; outside training, `factors` of `PrenetNoise` are the dropout."""
        for i, layer in enumerate(self.layers):
            x = layer(x).relu()
            if self.training:
                x = dropout(x, self.dropout)
            elif factors is not None:
                x = x * factors[..., i * self.units : (i + 1) * self.units].to(x)
        return x
