"""From mel frames to one vector per sample: learned upsampling, or recurrence and repetition."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class Upsampling(nn.Module):
    """Repeats frames and smooths the steps by a learned filter, once for each scale.

    Args:
        scales: factors; their product is the hop.
        freq_kernel: bands over which a filter reaches.
        activation: name of a module of torch.nn after each filter; None for none.
        activation_options: its arguments.

    Raises:
        ValueError: `freq_kernel` is even, a scale is below 1, or there is no such activation.

    Source: Shen et al., 2018, arXiv 1712.05884, section 2.4; as in r9y9/wavenet_vocoder.
    """

    def __init__(
        self,
        scales: Sequence[int],
        freq_kernel: int = 1,
        activation: str | None = None,
        activation_options: Mapping[str, float] | None = None,
    ):
        super().__init__()
        if freq_kernel % 2 == 0 or min(scales, default=1) < 1:
            raise ValueError(
                f"freq_kernel must be odd and scales at least 1, got {freq_kernel}, {list(scales)}"
            )
        if activation is not None and not hasattr(nn, activation):
            raise ValueError(f"torch.nn has no activation {activation!r}")
        self.scales = tuple(scales)
        self.filters, self.activations = nn.ModuleList(), nn.ModuleList()
        for scale in scales:
            conv = nn.Conv2d(
                1, 1, (freq_kernel, 2 * scale + 1), padding=(freq_kernel // 2, scale), bias=False
            )
            nn.init.constant_(conv.weight, 1 / (freq_kernel * (2 * scale + 1)))
            self.filters.append(weight_norm(conv, dim=0))
            kind = getattr(nn, activation) if activation else nn.Identity
            self.activations.append(kind(**(activation_options or {})))

    def forward(self, mels: Float[Tensor, "batch mels frames"]) -> Float[Tensor, "batch mels time"]:
        """Stretches time by the product of the scales."""
        x = mels[:, None]
        for scale, smooth, activation in zip(
            self.scales, self.filters, self.activations, strict=True
        ):
            x = activation(smooth(x.repeat_interleave(scale, -1)))
        return x[:, 0]


class ConvInUpsampling(nn.Module):
    """A convolution over frames, then `Upsampling`.

    Args:
        mels: bands.
        pad: frames on either side that the convolution reads; the caller supplies them.
        upsampling: what follows.
    """

    def __init__(self, mels: int, pad: int, upsampling: Upsampling):
        super().__init__()
        self.conv = nn.Conv1d(mels, mels, 2 * pad + 1, bias=False)
        self.upsampling = upsampling

    def forward(self, mels: Float[Tensor, "batch mels frames"]) -> Float[Tensor, "batch mels time"]:
        """Convolves and stretches."""
        return self.upsampling(self.conv(mels))


class TrimmedUpsampling(nn.Module):
    """`Upsampling`, of which the padded frames are cut off again.

    Args:
        pad: frames on either side that the caller supplies.
        upsampling: what stretches.
    """

    def __init__(self, pad: int, upsampling: Upsampling):
        super().__init__()
        self.pad, self.upsampling = pad, upsampling

    def forward(self, mels: Float[Tensor, "batch mels frames"]) -> Float[Tensor, "batch mels time"]:
        """Stretches and trims."""
        x = self.upsampling(mels)
        cut = self.pad * (x.shape[-1] // mels.shape[-1])
        return x[..., cut : x.shape[-1] - cut]


class QRNN(nn.Module):
    """A quasi-recurrent layer: causal convolutions give candidates and gates, pooling remembers.

    c_t = f_t c_{t-1} + (1 - f_t) z_t and h_t = o_t c_t, with z a tanh and f, o sigmoids.

    Args:
        dim: channels in.
        width: channels out.
        kernel: frames seen by the convolutions.

    Source: Bradbury et al., 2016, arXiv 1611.01576, eq. (1) and (5).

    Example:
        >>> QRNN(3, 4)(torch.randn(2, 3, 5)).shape
        torch.Size([2, 4, 5])
    """

    def __init__(self, dim: int, width: int, kernel: int = 2):
        super().__init__()
        self.kernel = kernel
        self.gates = nn.Conv1d(dim, 3 * width, kernel)

    def forward(self, x: Float[Tensor, "batch dim frames"]) -> Float[Tensor, "batch width frames"]:
        """Runs from the first frame to the last."""
        z, f, o = self.gates(nn.functional.pad(x, (self.kernel - 1, 0))).chunk(3, 1)
        z, f, o = z.tanh(), f.sigmoid(), o.sigmoid()
        c, states = torch.zeros_like(z[..., 0]), []
        for kept, new in zip(f.unbind(-1), ((1 - f) * z).unbind(-1), strict=True):
            c = kept * c + new
            states.append(c)
        return o * torch.stack(states, -1)


class RepeatedQRNN(nn.Module):
    """Two quasi-recurrent layers over the frames, each frame then repeated for its samples.

    Args:
        mels: bands.
        width: of the layers.
        hop: samples of a frame.

    Source: Li et al., 2019, arXiv 1809.08895, section 3.7; width and kernel are not given there.
    """

    def __init__(self, mels: int, width: int, hop: int):
        super().__init__()
        self.layers = nn.Sequential(QRNN(mels, width), QRNN(width, width))
        self.hop = hop

    def forward(self, mels: Float[Tensor, "batch mels frames"]) -> Float[Tensor, "batch w time"]:
        """Recurs and repeats."""
        return self.layers(mels).repeat_interleave(self.hop, -1)
