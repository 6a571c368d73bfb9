"""WaveNet's generation: one sample after another, with what each layer has seen kept."""

import ctypes
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn.native import Kernel

from .wavenet import GatedLayer, WaveNet, onehot_start

BLOCK = 64  # of wavenet_kernel/wavenet.c
KINDS = ("softmax", "logistic", "gaussian")
CHUNK = 512  # samples whose conditioning is projected at once

KERNEL = Kernel("wavenet", Path(__file__).with_name("wavenet_kernel"), ["attn_speech_wavenet"])


class Drawn(NamedTuple):
    """A stretch of generated samples.

    Attributes:
        x: the samples or classes drawn, batch by time.
        y: the network's outputs that they were drawn from.
    """

    x: Float[Tensor, "batch time"]
    y: Float[Tensor, "batch out_channels time"]


@torch.no_grad()
def generate(
    model: WaveNet,
    mels: Float[Tensor, "batch mels frames"] | None = None,
    speaker: Tensor | None = None,
    *,
    seeds: Sequence[int],
    steps: int | None = None,
    native: bool | None = None,
) -> Float[Tensor, "batch time"]:
    """Draws waveforms.

    Args:
        model: in eval mode, on the CPU.
        mels: scaled log mels, with the model's `margin` frames more on either side.
        speaker: as in the model's forward.
        seeds: of each row's draws; a row does not depend on the others.
        steps: samples to draw where there are no mels.
        native: whether the compiled step is used; where it can be, by default.

    Raises:
        ValueError: the model is in training mode, or the inputs do not fit.

    Example:
        >>> from attn_speech.models import WaveNetConfig
        >>> model = WaveNetConfig(layers=2, stacks=1, residual=4, gate=8, skip=4, mels=0).build()
        >>> generate(model.eval(), seeds=[0, 1], steps=20).shape
        torch.Size([2, 20])
    """
    stretches = list(stream(model, mels, speaker, seeds=seeds, steps=steps, native=native))
    return torch.cat(stretches, 1)


@torch.no_grad()
def stream(
    model: WaveNet,
    mels: Float[Tensor, "batch mels frames"] | None = None,
    speaker: Tensor | None = None,
    *,
    seeds: Sequence[int],
    steps: int | None = None,
    native: bool | None = None,
) -> Iterator[Float[Tensor, "batch time"]]:
    """The samples of `generate`, a stretch at a time."""
    total = steps
    if mels is not None:
        total = (mels.shape[-1] - 2 * model.config.margin) * model.config.hop
    if total is None:
        raise ValueError("without mels, say how many steps to draw")
    run = Generation(model, mels, speaker, total, batch=len(seeds), native=native)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for start in range(0, total, CHUNK):
        count = min(CHUNK, total - start)
        noise = torch.stack([model.config.output.noise(count, g) for g in generators], 1)
        yield model.heard(run.advance(count, noise).x)


class Generation:
    """A run of generation: weights laid out for single steps, and what layers have seen.

    Args:
        model: in eval mode.
        mels: as in `generate`.
        speaker: likewise.
        steps: samples that will be drawn in all.
        batch: rows.
        native: whether the compiled step is used; where it can be, by default.

    Raises:
        ValueError: the model is in training mode, or the inputs do not fit.
    """

    def __init__(
        self,
        model: WaveNet,
        mels: Tensor | None,
        speaker: Tensor | None,
        steps: int,
        *,
        batch: int,
        native: bool | None = None,
    ):
        if model.training:
            raise ValueError("generation needs the model in eval mode: model.eval()")
        given = mels if mels is not None else speaker
        if given is not None and len(given) != batch:
            raise ValueError(f"there are {batch} seeds for {len(given)} rows")
        config = model.config
        self.config, self.batch, self.time = config, batch, 0
        cond = model.conditions(mels, steps)
        self.cond = None if cond is None else cond.float()
        self.weights = Weights(model, model.speaker_vector(speaker))
        wide = self.weights.wide_residual
        lengths = [(config.kernel - 1) * d + 1 for d in config.dilations]
        self.rings = [torch.zeros(length, batch, wide) for length in lengths]
        start = float(onehot_start(config)) if config.onehot else 0.0
        if config.distribution == "softmax" and not config.onehot:
            start = (config.out_channels - 1) / 2
        self.last = torch.full((batch,), start)
        self.native = KERNEL.missing() is None if native is None else native
        if self.native:
            self._flat = torch.cat([ring.flatten() for ring in self.rings])
            sizes = [ring.numel() for ring in self.rings]
            self._at = torch.tensor([sum(sizes[:i]) for i in range(len(sizes))])
            self._dilations = torch.tensor(config.dilations)

    @torch.no_grad()
    def advance(
        self,
        steps: int,
        noise: Float[Tensor, "time batch draws"],
        forced: Num[Tensor, "batch time"] | None = None,
    ) -> Drawn:
        """Draws the next samples; with `forced`, inputs are these instead of what was drawn."""
        cond = self.weights.projected(self.cond, self.time, steps, self.batch)
        run = self._run_native if self.native else self._run_torch
        drawn, outputs = run(cond, noise.contiguous(), forced)
        self.time += steps
        outputs = outputs[..., : self.config.out_channels].permute(1, 2, 0)
        return Drawn(drawn.T, outputs)

    def _run_native(
        self, cond: Tensor, noise: Tensor, forced: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        w, config, steps = self.weights, self.config, len(noise)
        drawn = torch.empty(steps, self.batch)
        outputs = torch.empty(steps, self.batch, w.wide_channels)
        given = None if forced is None else forced.T.float().contiguous()
        sizes = dict(
            batch=self.batch, steps=steps, time=self.time, layers=config.layers,
            kernel=config.kernel, residual=config.residual, half=config.gate // 2,
            wide_residual=w.wide_residual, wide_half=w.wide_half, wide_skip=w.wide_skip,
            skip=config.skip, channels=config.out_channels, wide_channels=w.wide_channels,
            kind=KINDS.index(config.distribution), components=config.output.components,
            draws=noise.shape[-1], onehot=config.onehot,
        )  # fmt: skip
        tensors = dict(
            dilations=self._dilations, rings_at=self._at, first=w.first, first_bias=w.first_bias,
            convs=w.convs, outs=w.outs, out_biases=w.out_biases, last1=w.last1,
            last1_bias=w.last1_bias, last2=w.last2, last2_bias=w.last2_bias, cond=cond,
            noise=noise, forced=given, rings=self._flat, last=self.last, drawn=drawn,
            outputs=outputs,
        )  # fmt: skip
        pointers = {name: None if x is None else x.data_ptr() for name, x in tensors.items()}
        KERNEL.run("attn_speech_wavenet", Call(**sizes, **pointers))
        return drawn, outputs

    def _run_torch(
        self, cond: Tensor, noise: Tensor, forced: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        w, config = self.weights, self.config
        drawn, outputs = [], []
        for step, draws in enumerate(noise):
            x = self.last if forced is None else forced[:, step].float()
            h, total, now = self._entered(x), torch.zeros(()), self.time + step
            for layer, (gap, ring) in enumerate(zip(config.dilations, self.rings, strict=True)):
                ring[now % len(ring)] = h
                v = cond[step, :, layer]
                for tap in range(config.kernel):
                    then = now - (config.kernel - 1 - tap) * gap
                    if then >= 0:
                        v = v + ring[then % len(ring)] @ w.plain_convs[layer, tap]
                a, b = v.chunk(2, -1)
                o = w.out_biases[layer] + (a.tanh() * b.sigmoid()) @ w.plain_outs[layer]
                h = (o[:, : w.wide_residual] + h) * math.sqrt(0.5)
                total = total + o[:, w.wide_residual :]
            total = (total * math.sqrt(1 / config.layers)).relu()
            y = (w.last1_bias + total @ w.plain_last1).relu() @ w.plain_last2 + w.last2_bias
            y = y[:, : config.out_channels]
            self.last = config.output.sample(y, draws).float()
            drawn.append(self.last)
            outputs.append(y)
        return torch.stack(drawn), torch.stack(outputs)

    def _entered(self, x: Tensor) -> Tensor:
        w, config = self.weights, self.config
        if config.onehot:
            return w.first_bias + w.first[x.long()]
        if config.distribution == "softmax":
            x = x / (config.out_channels - 1) * 2 - 1
        return w.first_bias + x[:, None] * w.first[0]


class Weights:
    """The network's weights as single steps read them: in float32, rows padded to whole blocks.

    Args:
        model: whose they are.
        who: the speaker's vector of each row; None for none.
    """

    def __init__(self, model: WaveNet, who: Float[Tensor, "batch dim one"] | None):
        config = model.config
        self.wide_residual, self.wide_skip = _wide(config.residual), _wide(config.skip)
        self.wide_half, self.wide_channels = _wide(config.gate // 2), _wide(config.out_channels)
        first = model.first
        self.first = _padded(first.weight[..., 0].T, self.wide_residual)
        self.first_bias = _padded(_bias(first), self.wide_residual)
        convs, outs, biases, conds, shifts = [], [], [], [], []
        for layer in cast(Iterable[GatedLayer], model.layers):
            convs.append(torch.stack([self._halves(tap) for tap in layer.conv.weight.unbind(-1)]))
            outs.append(
                torch.cat(
                    [_padded(layer.out.weight[..., 0].T, self.wide_residual),
                     _padded(layer.skip.weight[..., 0].T, self.wide_skip)], -1,
                )
            )  # fmt: skip
            biases.append(
                torch.cat([_padded(_bias(layer.out), self.wide_residual),
                           _padded(_bias(layer.skip), self.wide_skip)])
            )  # fmt: skip
            shift = self._halves(_bias(layer.conv)[:, None])
            if layer.who is not None:
                shift = shift + self._halves(layer.who(who)[..., 0].T)
            shifts.append(shift)
            if layer.cond is not None:
                conds.append(self._halves(layer.cond.weight[..., 0]))
        plain_convs = torch.stack(convs)  # layer, tap, residual, both halves
        plain_outs = torch.stack(outs)  # layer, half, residual and skip
        self.out_biases = torch.stack(biases).contiguous()
        self.shifts = torch.stack(shifts, 1)  # row or 1, layer, both halves
        self.conds = torch.stack(conds, 1).flatten(1) if conds else None
        plain_last1 = _padded(model.last1.weight[..., 0].T, self.wide_skip)
        plain_last2 = _padded(model.last2.weight[..., 0].T, self.wide_channels)
        self.last1_bias = _padded(_bias(model.last1), self.wide_skip)
        self.last2_bias = _padded(_bias(model.last2), self.wide_channels)
        self.convs, self.outs = _blocked(plain_convs), _blocked(plain_outs)
        self.last1, self.last2 = _blocked(plain_last1), _blocked(plain_last2)
        # For steps in torch: inputs are padded too.
        self.plain_convs = F.pad(plain_convs, (0, 0, 0, self.wide_residual - config.residual))
        self.plain_outs = F.pad(plain_outs, (0, 0, 0, self.wide_half - config.gate // 2))
        self.plain_last1 = F.pad(plain_last1, (0, 0, 0, self.wide_skip - config.skip))
        self.plain_last2 = F.pad(plain_last2, (0, 0, 0, self.wide_skip - config.skip))

    def projected(
        self, cond: Float[Tensor, "batch channels time"] | None, start: int, steps: int, batch: int
    ) -> Float[Tensor, "{steps} {batch} layers halves"]:
        """The conditioning of some steps as every layer adds it, with its bias."""
        shifts = self.shifts.expand(batch, -1, -1)
        if cond is None or self.conds is None:
            return shifts.expand(steps, -1, -1, -1).contiguous()
        part = cond[..., start : start + steps].permute(2, 0, 1)
        added = (part @ self.conds).unflatten(-1, (self.shifts.shape[1], -1))
        return (added + shifts).contiguous()

    def _halves(self, weight: Float[Tensor, "gate in"]) -> Float[Tensor, "in halves"]:
        """Transposed, with each half of the gate padded."""
        return torch.cat([_padded(part.T, self.wide_half) for part in weight.chunk(2)], -1)


class Call(ctypes.Structure):
    """The arguments of a run; `Call` of wavenet_kernel/wavenet.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "batch", "steps", "time", "layers", "kernel", "residual", "half", "wide_residual",
                "wide_half", "wide_skip", "skip", "channels", "wide_channels", "kind",
                "components", "draws", "onehot",
            )
        ),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "dilations", "rings_at", "first", "first_bias", "convs", "outs", "out_biases",
                "last1", "last1_bias", "last2", "last2_bias", "cond", "noise", "forced", "rings",
                "last", "drawn", "outputs",
            )
        ),
    ]  # fmt: skip


def _bias(conv: nn.Conv1d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _wide(count: int) -> int:
    return -(-count // BLOCK) * BLOCK


def _padded(x: Tensor, wide: int) -> Tensor:
    return F.pad(x.float(), (0, wide - x.shape[-1])).contiguous()


def _blocked(weight: Float[Tensor, "*kinds in out"]) -> Float[Tensor, "*kinds blocks in block"]:
    return weight.unflatten(-1, (-1, BLOCK)).transpose(-3, -2).contiguous()
