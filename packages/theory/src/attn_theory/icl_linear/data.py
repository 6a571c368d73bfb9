"""Prompts: regression problems shown as a context of labelled points and one query."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Prompts(NamedTuple):
    """A batch of in-context regression problems; `outputs` is 1 but for several tasks at once.

    Attributes:
        context: labelled points [x; y], of width d + outputs.
        x_query, y_query: the point asked for, and its label.

    Example:
        >>> prompts = LinearRegression(d=3, length=7).sample(2)
        >>> prompts.x.shape, prompts.y.shape, prompts.query.shape
        (torch.Size([2, 7, 3]), torch.Size([2, 7, 1]), torch.Size([2, 1, 4]))
    """

    context: Float[Tensor, "*batch length width"]
    x_query: Float[Tensor, "*batch d"]
    y_query: Float[Tensor, "*batch outputs"]

    @property
    def x(self) -> Float[Tensor, "*batch length d"]:
        """The covariates of the context."""
        return self.context[..., : self.x_query.shape[-1]]

    @property
    def y(self) -> Float[Tensor, "*batch length outputs"]:
        """The labels of the context."""
        return self.context[..., self.x_query.shape[-1] :]

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
        table, x, label = _table(batch, self.d, 1, self.length, generator, dtype)
        if self.rho:
            x.copy_(torch.linalg.cholesky(self.covariance().to(x)) @ x)
        if self.mean:
            x.add_(self.mean)
        beta = _normal((*batch, self.d, 1), generator, dtype)
        # A row times a matrix: far too small for a batched product to pay.
        signal = (x * beta).sum(-2, keepdim=True)
        label.mul_(self.noise**0.5).add_(signal, alpha=self.d**-0.5)
        return _prompts(table, self.d)


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
        table, x, labels = _table(batch, self.d, len(self.supports), self.length, generator, dtype)
        labels[..., -1] = 0
        for label, support in zip(labels.split(1, -2), self.supports, strict=True):
            beta = _normal((*batch, len(support), 1), generator, dtype)
            signal = (x[..., list(support), :] * beta).sum(-2, keepdim=True)
            label.mul_((len(support) * self.noise) ** 0.5).add_(signal)
        return _prompts(table, self.d)


def _normal(
    shape: tuple[int, ...], generator: torch.Generator | None, dtype: torch.dtype
) -> Tensor:
    """Normal numbers, drawn in float32 whatever the type: float64 takes five times as long."""
    device = "cpu" if generator is None else generator.device
    return torch.randn(*shape, generator=generator, device=device).to(dtype)


def _table(
    batch: tuple[int, ...],
    d: int,
    outputs: int,
    length: int,
    generator: torch.Generator | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Covariates and noise drawn in one go, the query last: the table, and views of its rows.

    A token is a column. Products of few rows with such tokens take half the time they take with
    tokens that lie one after the other.
    """
    table = _normal((*batch, d + outputs, length + 1), generator, dtype)
    return table, table[..., :d, :], table[..., d:, :]


def _prompts(table: Tensor, d: int) -> Prompts:
    return Prompts(table[..., :-1].mT, table[..., :d, -1], table[..., d:, -1])
