"""WaveNet: a waveform sample by sample, by dilated convolutions, from a mel spectrogram."""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from core_attn import Dropout

from .bounds import require_at_least, require_one_of
from .conditioning import ConvInUpsampling, RepeatedQRNN, TrimmedUpsampling, Upsampling
from .distributions import Distribution, Kind, mu_law, mu_law_inverse

Conditioning = Literal["conv_in", "upsample", "qrnn", "given"]


@dataclass(frozen=True)
class WaveNetConfig:
    """Sizes and options; the defaults are the mixture-of-logistics recipe of the reference.

    Attributes:
        layers: dilated convolutions.
        stacks: of layers in each of which the dilation doubles from 1.
        residual: channels between layers.
        gate: channels of a dilated convolution, half of them for the gate.
        skip: channels of what a layer adds to the output.
        kernel: taps of a dilated convolution.
        dropout: before each dilated convolution, in training.
        distribution: of the next sample.
        out_channels: that describe it.
        levels: values that a sample can take, for logistic bins.
        log_scale_min: the smallest log scale that the likelihood sees.
        onehot: whether the input is classes, one-hot; softmax of classes only.
        mels: bands of the conditioning; 0 for none.
        conditioning: how frames become samples: "conv_in" (a convolution, then learned
            upsampling), "upsample", "qrnn" (the paper's), or "given" (they are samples already).
        scales: factors of the upsampling; their product is the hop.
        pad: frames on either side that "conv_in" and "upsample" read besides.
        freq_kernel: bands over which a filter of the upsampling reaches.
        activation: name of a module of torch.nn after each filter; None for none.
        activation_options: its arguments.
        qrnn_width: of the quasi-recurrent layers.
        speaker_dim: of the speaker's vector; 0 for none.
        speakers: entries of a table of such vectors; 0 where they are given.

    Source: van den Oord et al., 2016, "WaveNet", arXiv 1609.03499.
    """

    layers: int = 24
    stacks: int = 4
    residual: int = 128
    gate: int = 256
    skip: int = 128
    kernel: int = 3
    dropout: float = 0.05
    distribution: Kind = "logistic"
    out_channels: int = 30
    levels: int = 65536
    log_scale_min: float = -16.0
    onehot: bool = False
    mels: int = 80
    conditioning: Conditioning = "conv_in"
    scales: tuple[int, ...] = (4, 4, 4, 4)
    pad: int = 2
    freq_kernel: int = 1
    activation: str | None = None
    activation_options: dict[str, float] = field(default_factory=dict)
    qrnn_width: int = 256
    speaker_dim: int = 0
    speakers: int = 0

    def __post_init__(self):
        require_at_least(1, self, "layers stacks residual gate skip kernel qrnn_width")
        require_at_least(2, self, "levels")
        require_at_least(0, self, "mels pad speaker_dim speakers")
        require_one_of(get_args(Conditioning), self, "conditioning")
        if self.layers % self.stacks:
            raise ValueError(f"layers {self.layers} is not divisible by stacks {self.stacks}")
        if self.gate % 2:
            raise ValueError(f"gate must be even, got {self.gate}")
        if self.onehot and self.distribution != "softmax":
            raise ValueError(f"onehot needs distribution softmax, got {self.distribution}")
        if self.speakers and not self.speaker_dim:
            raise ValueError(f"{self.speakers} speakers need a speaker_dim")
        _ = self.output

    @property
    def output(self) -> Distribution:
        """The distribution of the next sample."""
        return Distribution(self.distribution, self.out_channels, self.levels, self.log_scale_min)

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return 1 if self.conditioning == "given" else math.prod(self.scales)

    @property
    def margin(self) -> int:
        """Frames that the mels have on either side of those that become samples."""
        return self.pad if self.conditioning in ("conv_in", "upsample") else 0

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of each layer."""
        return tuple(2 ** (i % (self.layers // self.stacks)) for i in range(self.layers))

    @property
    def receptive_field(self) -> int:
        """Samples, with the present one, on which an output depends."""
        return (self.kernel - 1) * sum(self.dilations) + 1

    def build(self) -> "WaveNet":
        """The network, freshly initialized."""
        return WaveNet(self)


class WaveNet(nn.Module):
    """Samples so far to the distribution of each next one.

    Args:
        config: sizes and options.

    Source: van den Oord et al., 2016, arXiv 1609.03499, figure 4.

    Example:
        >>> config = WaveNetConfig(layers=2, stacks=1, residual=4, gate=8, skip=4, mels=3,
        ...     scales=(2, 2), pad=1)
        >>> config.build()(torch.zeros(1, 1, 12), torch.randn(1, 3, 5)).shape
        torch.Size([1, 30, 12])
    """

    def __init__(self, config: WaveNetConfig):
        super().__init__()
        self.config = config
        self.first = _conv(config.out_channels if config.onehot else 1, config.residual)
        cond = _conditioning(config)
        self.condition, cond_channels = cond if cond is not None else (None, config.mels)
        self.layers = nn.ModuleList(
            GatedLayer(config, dilation, cond_channels) for dilation in config.dilations
        )
        self.layers[-1].get_submodule("out").requires_grad_(False)  # its result goes nowhere
        self.last1 = _conv(config.skip, config.skip)
        self.last2 = _conv(config.skip, config.out_channels)
        self.speaker = None
        if config.speakers:
            self.speaker = nn.Embedding(config.speakers, config.speaker_dim)
            nn.init.normal_(self.speaker.weight, 0.0, 0.1)

    def forward(
        self,
        x: Float[Tensor, "batch channels time"],
        mels: Float[Tensor, "batch mels frames"] | None = None,
        speaker: Tensor | None = None,
    ) -> Float[Tensor, "batch out_channels time"]:
        """The output at t describes the sample at t + 1.

        Args:
            x: samples in one channel, or classes one-hot.
            mels: frames, with `config.margin` more on either side.
            speaker: (batch) entries of the table, or (batch, speaker_dim) vectors.

        Raises:
            ValueError: an input is missing, not expected, or of a length that does not fit.
        """
        cond = self.conditions(mels, x.shape[-1])
        who = self.speaker_vector(speaker)
        h, total = self.first(x), torch.zeros((), device=x.device, dtype=x.dtype)
        for layer in self.layers:
            h, skip = layer(h, cond, who)
            total = total + skip
        total = total * math.sqrt(1 / len(self.layers))
        return self.last2(self.last1(total.relu()).relu())

    def cost(
        self,
        audio: Float[Tensor, "batch time"],
        mels: Float[Tensor, "batch mels frames"] | None = None,
        speaker: Tensor | None = None,
    ) -> Float[Tensor, "batch time_but_one"]:
        """Negative log likelihood of each sample but the first, given those before it."""
        x, target = self.given(audio)
        return self.config.output.cost(self(x, mels, speaker)[..., :-1], target[:, 1:])

    def given(self, audio: Float[Tensor, "batch time"]) -> tuple[Tensor, Tensor]:
        """The network's input (batch, channels, time) and target (batch, time) of a waveform.

        Raises:
            ValueError: samples are outside [-1, 1].
        """
        if audio.numel() and not float(audio.detach().abs().max()) <= 1:
            raise ValueError(
                f"audio must be in [-1, 1], got {float(audio.min())} ... {float(audio.max())}"
            )
        if self.config.distribution != "softmax":
            return audio[:, None], audio
        index = mu_law(audio, self.config.out_channels)
        if self.config.onehot:
            hot = nn.functional.one_hot(index, self.config.out_channels)
            return hot.transpose(1, 2).to(audio), index
        return self.heard(index)[:, None], index

    def heard(self, drawn: Tensor) -> Tensor:
        """What drawn samples or classes sound like; squeezed still for scalar mu-law input."""
        if self.config.distribution != "softmax":
            return drawn
        if self.config.onehot:
            return mu_law_inverse(drawn, self.config.out_channels)
        return drawn / (self.config.out_channels - 1) * 2 - 1

    def conditions(
        self, mels: Float[Tensor, "batch mels frames"] | None, time: int
    ) -> Float[Tensor, "batch cond time"] | None:
        """The conditioning of every sample.

        Raises:
            ValueError: mels are missing or not expected, have other bands, or another length.
        """
        if (mels is None) != (self.config.mels == 0):
            raise ValueError(f"this model {'needs' if mels is None else 'takes no'} mels")
        if mels is None:
            return None
        if mels.shape[1] != self.config.mels:
            raise ValueError(f"mels have {mels.shape[1]} bands, the model {self.config.mels}")
        if mels.shape[2] <= 2 * self.config.margin:
            raise ValueError(
                f"mels have {mels.shape[2]} frames, they need more than the "
                f"{self.config.margin} on either side"
            )
        cond = mels if self.condition is None else self.condition(mels)
        if cond.shape[-1] != time:
            frames = cond.shape[-1] // self.config.hop
            raise ValueError(
                f"mels give {cond.shape[-1]} samples ({frames} frames x hop {self.config.hop}, "
                f"{self.config.margin} more on either side), audio has {time}"
            )
        return cond

    def speaker_vector(self, speaker: Tensor | None) -> Float[Tensor, "batch dim one"] | None:
        """The speaker's vector.

        Raises:
            ValueError: a speaker is missing, not expected, or not in the table.
        """
        if (speaker is None) != (self.config.speaker_dim == 0):
            raise ValueError(f"this model {'needs' if speaker is None else 'takes no'} speaker")
        if speaker is None:
            return None
        if self.speaker is None:
            return speaker.reshape(len(speaker), -1, 1)
        speaker = speaker.reshape(-1)
        if not 0 <= int(speaker.min()) <= int(speaker.max()) < self.config.speakers:
            raise ValueError(
                f"speaker must be in 0 ... {self.config.speakers - 1}, got {speaker.tolist()}"
            )
        return self.speaker(speaker)[..., None]


class Step(NamedTuple):
    """What a layer gives: the input of the next one, and its part of the output."""

    next: Tensor
    skip: Tensor


class GatedLayer(nn.Module):
    """A dilated causal convolution with a gate, a residual and a skip connection.

    Args:
        config: sizes.
        dilation: distance of the taps.
        cond_channels: of the conditioning; 0 for none.
    """

    def __init__(self, config: WaveNetConfig, dilation: int, cond_channels: int):
        super().__init__()
        self.dilation, self.kernel = dilation, config.kernel
        self.dropout = Dropout(config.dropout)
        self.conv = _conv(config.residual, config.gate, config.kernel, dilation)
        self.cond = _conv(cond_channels, config.gate, bias=False) if cond_channels else None
        self.who = (
            _conv(config.speaker_dim, config.gate, bias=False) if config.speaker_dim else None
        )
        self.skip = _conv(config.gate // 2, config.skip)
        self.out = _conv(config.gate // 2, config.residual)

    def forward(self, h: Tensor, cond: Tensor | None, who: Tensor | None) -> Step:
        """Applies the layer to (batch, residual, time)."""
        v = self.conv(nn.functional.pad(self.dropout(h), ((self.kernel - 1) * self.dilation, 0)))
        if self.cond is not None:
            v = v + self.cond(cond)
        if self.who is not None:
            v = v + self.who(who)
        a, b = v.chunk(2, 1)
        z = a.tanh() * b.sigmoid()
        return Step((self.out(z) + h) * math.sqrt(0.5), self.skip(z))


def _conv(
    dim: int, out: int, kernel: int = 1, dilation: int = 1, *, bias: bool = True
) -> nn.Conv1d:
    conv = nn.Conv1d(dim, out, kernel, dilation=dilation, bias=bias)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return cast(nn.Conv1d, weight_norm(conv, dim=0))


def _conditioning(config: WaveNetConfig) -> tuple[nn.Module, int] | None:
    """The module that turns frames into samples, and its channels; None where none is needed."""
    if config.mels == 0 or config.conditioning == "given":
        return None
    if config.conditioning == "qrnn":
        return RepeatedQRNN(config.mels, config.qrnn_width, config.hop), config.qrnn_width
    upsampling = Upsampling(
        config.scales, config.freq_kernel, config.activation, config.activation_options
    )
    if config.conditioning == "conv_in":
        return ConvInUpsampling(config.mels, config.pad, upsampling), config.mels
    return TrimmedUpsampling(config.pad, upsampling), config.mels


def onehot_start(config: WaveNetConfig) -> Int[Tensor, ""]:
    """The class that stands for silence before the first sample.

    The reference takes class 127 and fails for fewer than 128 classes; there it is the middle one.
    """
    return torch.tensor(127 if config.out_channels >= 128 else config.out_channels // 2)
