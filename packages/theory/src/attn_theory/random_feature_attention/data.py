"""Inputs on the sphere and targets that are means over keys."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Inputs(NamedTuple):
    """A query and its keys."""

    query: Float[Tensor, "samples d"]
    keys: Float[Tensor, "samples keys d"]

    def rows(self, chosen) -> "Inputs":
        """Some of the samples."""
        return Inputs(self.query[chosen], self.keys[chosen])

    def lifted(self) -> tuple[Float[Tensor, "samples width"], Float[Tensor, "samples keys width"]]:
        """Query and keys with a 1 appended.

        Raises:
            ValueError: there are no keys, or the widths of query and keys differ.
        """
        if self.keys.shape[-2] == 0:
            raise ValueError("there must be at least 1 key, got 0")
        if self.query.shape[-1] != self.keys.shape[-1]:
            raise ValueError(
                f"query has d = {self.query.shape[-1]}, keys have {self.keys.shape[-1]}; "
                "they must agree"
            )
        query, keys = (torch.cat((x, torch.ones_like(x[..., :1])), -1) for x in self)
        return query, keys


def sphere(samples: int, keys: int, d: int, generator: torch.Generator | None = None) -> Inputs:
    """Queries and keys, independent and uniform on the unit sphere of R^d.

    Example:
        >>> sphere(2, 3, 4).keys.norm(dim=-1).allclose(torch.ones(2, 3))
        True
    """
    device = "cpu" if generator is None else generator.device
    x = torch.randn(samples, keys + 1, d, generator=generator, device=device)
    x = x / x.norm(dim=-1, keepdim=True)
    return Inputs(x[:, 0], x[:, 1:])


Target = Callable[[Inputs], Float[Tensor, " samples"]]


def power_of_key(p: int, beta: Float[Tensor, " d"]) -> Target:
    """f1: (1/N) sum_i <beta, x_i>^p."""
    return lambda inputs: (inputs.keys @ beta).pow(p).mean(-1)


def power_of_match(
    q: int, beta: Float[Tensor, " d"], matrix: Float[Tensor, "d d"] | None = None
) -> Target:
    """f2: (1/N) sum_i <x_0, S x_i>^q <beta, x_i>; S is the identity for None."""

    def target(inputs: Inputs) -> Tensor:
        query = inputs.query if matrix is None else inputs.query @ matrix
        match = torch.einsum("nd,nid->ni", query, inputs.keys)
        return (match.pow(q) * (inputs.keys @ beta)).mean(-1)

    return target


def paper_targets(
    d: int, generator: torch.Generator, *, rotated: bool = False
) -> dict[str, Target]:
    """f1 for p = 2, 3, 4 and f2 for q = 1, 2, 4; f2 with a random rotation too where asked.

    The families and degrees are recalled from the paper, not checked against its text.

    Example:
        >>> list(paper_targets(3, torch.Generator()))
        ['f1 p2', 'f1 p3', 'f1 p4', 'f2 q1', 'f2 q2', 'f2 q4']
    """
    device = generator.device
    beta = torch.randn(d, generator=generator, device=device)
    beta = beta / beta.norm()
    targets = {f"f1 p{p}": power_of_key(p, beta) for p in (2, 3, 4)}
    targets |= {f"f2 q{q}": power_of_match(q, beta) for q in (1, 2, 4)}
    if rotated:
        turn = torch.linalg.qr(torch.randn(d, d, generator=generator, device=device)).Q
        targets |= {f"turned q{q}": power_of_match(q, beta, turn) for q in (1, 2, 4)}
    return targets
