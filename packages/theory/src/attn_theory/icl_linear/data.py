"""Prompts: regression problems shown as a context of labelled points and one query."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Prompts(NamedTuple):
    """A batch of in-context regression problems; `outputs` is 1 but for several tasks at once."""

    x: Float[Tensor, "*batch length d"]
    y: Float[Tensor, "*batch length outputs"]
    x_query: Float[Tensor, "*batch d"]
    y_query: Float[Tensor, "*batch outputs"]

    @property
    def context(self) -> Float[Tensor, "*batch length width"]:
        """Tokens [x; y], of width d + outputs."""
        return torch.cat((self.x, self.y), -1)

    @property
    def query(self) -> Float[Tensor, "*batch 1 width"]:
        """The token [x_query; 0]."""
        return torch.cat((self.x_query, torch.zeros_like(self.y_query)), -1).unsqueeze(-2)


@dataclass(frozen=True)
class LinearRegression:
    """y = <beta, x> + noise with beta ~ N(0, I/d), x ~ N(mean, Sigma), Sigma_ij = rho^|i-j|.

    Attributes:
        d: dimension of x.
        length: number of labelled points.
        noise: variance of the noise on every label, the query's included.
        rho: correlation of neighbouring coordinates.
        mean: of every coordinate.

    Example:
        >>> prompts = LinearRegression(d=3, length=7).sample(2)
        >>> prompts.context.shape, prompts.query.shape
        (torch.Size([2, 7, 4]), torch.Size([2, 1, 4]))
    """

    d: int = 5
    length: int = 40
    noise: float = 0.1
    rho: float = 0.0
    mean: float = 0.0

    def __post_init__(self):
        if self.d < 1:
            raise ValueError(f"d must be at least 1, got {self.d}")
        if self.length < 2:
            raise ValueError(
                f"length must be at least 2 (debiasing needs two points), got {self.length}"
            )
        if self.noise < 0:
            raise ValueError(f"noise must be a variance >= 0, got {self.noise}")
        if not -1 < self.rho < 1:
            raise ValueError(f"rho must be in (-1, 1), got {self.rho}")

    def covariance(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "d d"]:
        """Sigma."""
        i = torch.arange(self.d, dtype=dtype)
        return torch.tensor(self.rho, dtype=dtype) ** (i[:, None] - i).abs()

    def sample(
        self,
        *batch: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Prompts:
        """Draws prompts of any batch shape, on the generator's device."""
        device = "cpu" if generator is None else generator.device

        def normal(*shape: int) -> Tensor:
            return torch.randn(*batch, *shape, generator=generator, dtype=dtype, device=device)

        x = normal(self.length + 1, self.d)
        if self.rho:
            x = x @ torch.linalg.cholesky(self.covariance().to(x)).T
        if self.mean:
            x = x + self.mean
        beta = normal(self.d, 1) / self.d**0.5
        # Rows times a vector: far too small for a batched product to pay.
        signal = (x * beta.transpose(-1, -2)).sum(-1, keepdim=True)
        y = signal + self.noise**0.5 * normal(self.length + 1, 1)
        return Prompts(x[..., :-1, :], y[..., :-1, :], x[..., -1, :], y[..., -1, :])


@dataclass(frozen=True)
class MultiTask:
    """Several regressions on one x, each on its own coordinates, with beta ~ N(0, I).

    Labels of the context carry noise of variance `noise` times the size of the support; the
    query's label is free of noise.

    Attributes:
        d: dimension of x.
        length: number of labelled points.
        noise: noise variance per supporting coordinate.
        supports: the coordinates of each task.

    Example:
        >>> MultiTask().sample(2).y.shape
        torch.Size([2, 48, 2])
    """

    d: int = 6
    length: int = 48
    noise: float = 0.1
    supports: tuple[tuple[int, ...], ...] = ((0, 1, 2, 3), (2, 3, 4, 5))

    def __post_init__(self):
        for task, support in enumerate(self.supports):
            if not support or not all(0 <= j < self.d for j in support):
                raise ValueError(
                    f"supports[{task}] = {support} must name coordinates in [0, {self.d})"
                )

    def sample(
        self,
        *batch: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Prompts:
        """Draws prompts of any batch shape, on the generator's device."""
        device = "cpu" if generator is None else generator.device

        def normal(*shape: int) -> Tensor:
            return torch.randn(*batch, *shape, generator=generator, dtype=dtype, device=device)

        x = normal(self.length + 1, self.d)
        clean, noise = [], []
        for support in self.supports:
            clean.append(x[..., list(support)] @ normal(len(support), 1))
            noise.append((len(support) * self.noise) ** 0.5 * normal(self.length, 1))
        label = torch.cat(clean, -1)
        y = label[..., :-1, :] + torch.cat(noise, -1)
        return Prompts(x[..., :-1, :], y, x[..., -1, :], label[..., -1, :])
