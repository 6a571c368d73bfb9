"""What WaveNet says of the next sample: classes, a mixture of logistics, or of Gaussians."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Kind = Literal["softmax", "logistic", "gaussian"]


def mu_law(x: Float[Tensor, "*time"], classes: int) -> Int[Tensor, "*time"]:
    """Samples in [-1, 1] as classes, finer near silence.

    Source: ITU-T G.711; van den Oord et al., 2016, arXiv 1609.03499, section 2.2.

    Example:
        >>> mu_law(torch.tensor([-1.0, 0.0, 1.0]), 256)
        tensor([  0, 128, 255])
    """
    mu = classes - 1
    squeezed = x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)
    return ((squeezed + 1) / 2 * mu + 0.5).floor().long()


def mu_law_inverse(index: Int[Tensor, "*time"], classes: int) -> Float[Tensor, "*time"]:
    """The samples that classes stand for.

    Example:
        >>> mu_law_inverse(torch.tensor([0, 255]), 256)
        tensor([-1.,  1.])
    """
    mu = classes - 1
    squeezed = index / mu * 2 - 1
    return squeezed.sign() * torch.expm1(squeezed.abs() * math.log1p(mu)) / mu


@dataclass(frozen=True)
class Distribution:
    """A distribution of samples, given by a network's output channels.

    Attributes:
        kind: "softmax" over mu-law classes; "logistic" or "gaussian" over [-1, 1], with channels
            [logits, means, log scales] of each component, or [mean, log scale] of one Gaussian.
        channels: of the network's output.
        levels: values that a sample can take, which sets the width of logistic bins.
        log_scale_min: the smallest log scale that the likelihood sees.

    Source: van den Oord et al., 2016, arXiv 1609.03499; Salimans et al., 2017, arXiv 1701.05517,
    section 2.1, for logistics.

    Raises:
        ValueError: the channels do not make up components.
    """

    kind: Kind
    channels: int
    levels: int = 65536
    log_scale_min: float = -7.0

    def __post_init__(self):
        if self.kind not in ("softmax", "logistic", "gaussian"):
            raise ValueError(
                f"distribution must be softmax, logistic or gaussian, got {self.kind!r}"
            )
        pair = self.kind == "gaussian" and self.channels == 2
        if self.channels < 2 or (self.kind != "softmax" and self.channels % 3 and not pair):
            allowed = {"softmax": "2 or more", "logistic": "a multiple of 3"}
            raise ValueError(
                f"out_channels of {self.kind} must be "
                f"{allowed.get(self.kind, '2 or a multiple of 3')}, got {self.channels}"
            )

    def cost(
        self, y: Float[Tensor, "batch channels time"], x: Tensor
    ) -> Float[Tensor, "batch time"]:
        """Negative log likelihood.

        Args:
            y: the network's output.
            x: (batch, time): the samples, or their classes.
        """
        if self.kind == "softmax":
            return F.cross_entropy(y, x, reduction="none")
        logits, mean, log_scale = self._components(y)
        log_scale = log_scale.clamp(min=self.log_scale_min)
        x = x[:, None]
        if self.kind == "gaussian":
            z = (x - mean) * (-log_scale).exp()
            log_p = -z.square() / 2 - log_scale - math.log(2 * math.pi) / 2
        else:
            log_p = self._log_bins(x, mean, log_scale)
        return -(log_p + logits.log_softmax(1)).logsumexp(1)

    def noise(self, steps: int, generator: torch.Generator) -> Float[Tensor, "steps draws"]:
        """Uniform numbers for `sample`: one for each class or component, and one for the value."""
        draws = self.channels if self.kind == "softmax" else self.components + 2
        return torch.rand(steps, draws, generator=generator).clamp(1e-5, 1 - 1e-5)

    def sample(
        self, y: Float[Tensor, "batch channels"], noise: Float[Tensor, "batch draws"]
    ) -> Tensor:
        """Draws samples (batch), or classes: the highest of logits plus Gumbel noise."""
        gumbel = -(-noise.log()).log()
        if self.kind == "softmax":
            return (y + gumbel).argmax(1)
        logits, mean, log_scale = self._components(y)
        chosen = (logits + gumbel[:, : self.components]).argmax(1, keepdim=True)
        mean, log_scale = mean.gather(1, chosen)[:, 0], log_scale.gather(1, chosen)[:, 0]
        u, v = noise[:, -2], noise[:, -1]
        if self.kind == "logistic":
            standard = u.log() - (1 - u).log()
        else:
            standard = (-2 * u.log()).sqrt() * (2 * math.pi * v).cos()
        return (mean + log_scale.exp() * standard).clamp(-1, 1)

    @property
    def components(self) -> int:
        """Of the mixture."""
        return 1 if self.channels == 2 else self.channels // 3

    def _components(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.channels == 2:
            return torch.zeros_like(y[:, :1]), y[:, :1], y[:, 1:]
        logits, mean, log_scale = y.chunk(3, 1)
        return logits, mean, log_scale

    def _log_bins(self, x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """The log of the probability of the bin around x; the outer bins reach to infinity."""
        centered, inverse = x - mean, (-log_scale).exp()
        half = 1 / (self.levels - 1)
        plus, minus = inverse * (centered + half), inverse * (centered - half)
        middle = inverse * centered
        inside = plus.sigmoid() - minus.sigmoid()
        density = middle - log_scale - 2 * F.softplus(middle) - math.log((self.levels - 1) / 2)
        within = torch.where(inside > 1e-5, inside.clamp(min=1e-12).log(), density)
        within = torch.where(x > 0.999, -F.softplus(minus), within)
        return torch.where(x < -0.999, plus - F.softplus(plus), within)
