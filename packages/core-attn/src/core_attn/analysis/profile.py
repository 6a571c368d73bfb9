"""How heads spread their weight, for attention of any kind: words, fields, atoms, sounds."""

from collections.abc import Callable, Mapping
from functools import partial

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .sites import Sites, find_sites

NUMBERS = ("entropy", "largest", "self_mass", "distance")


class Profile:
    """A reduction that keeps, per head, how it spreads its weight, in constant memory.

    "entropy" (nats) and "largest" (the largest weight) are means over queries; so are, where
    queries are the keys, "self_mass" (the weight of a query on itself) and "distance" (the weights
    times how many places apart query and key stand). Queries without any key, as padding has them,
    do not count.

    Attributes:
        softmax: whether the weights of every query that has keys summed to 1 so far.

    Source: the definitions are this project's.

    Example:
        >>> profile = Profile()
        >>> profile.update(torch.eye(3).expand(2, 1, 3, 3))
        >>> {name: float(value[0]) for name, value in profile.numbers().items()}
        {'entropy': 0.0, 'largest': 1.0, 'self_mass': 1.0, 'distance': 0.0}
    """

    def __init__(self):
        self.softmax = True
        self._totals: dict[str, Tensor] = {}
        self._rows = torch.zeros(())
        self._mean: Tensor | None = None
        self._samples = 0

    @torch.no_grad()
    def update(self, x: Float[Tensor, "samples heads queries keys"]) -> None:
        """Takes the weights of some samples.

        Raises:
            ValueError: they have other axes, or are NaN.
        """
        if x.dim() != 4:
            raise ValueError(f"weights must be (samples, heads, queries, keys), got {x.dim()} axes")
        if not x.isfinite().all():
            raise ValueError("weights contain NaN or infinity")
        x = x.detach().float().cpu()
        sums = x.sum(-1)
        real = sums > 0
        self.softmax &= bool(((sums - 1).abs() < 1e-2)[real].all())
        found = {"entropy": torch.special.entr(x).sum(-1), "largest": x.amax(-1)}
        queries, keys = x.shape[-2:]
        if queries == keys:
            places = torch.arange(keys)
            found["self_mass"] = x.diagonal(dim1=-2, dim2=-1)
            found["distance"] = (x * (places[:, None] - places).abs()).sum(-1)
        for name, values in found.items():
            total = torch.where(real, values, 0).sum((0, 2), dtype=torch.float64)
            self._totals[name] = self._totals.get(name, torch.zeros(())) + total
        self._rows = self._rows + real.sum((0, 2))
        mean = x.sum(0)
        if self._samples and (self._mean is None or self._mean.shape != mean.shape):
            self._mean = None  # samples of other sizes have no mean map
        else:
            self._mean = mean if self._mean is None else self._mean + mean
        self._samples += len(x)

    def numbers(self) -> dict[str, Float[Tensor, " heads"]]:
        """Means over queries and samples.

        Raises:
            ValueError: nothing was seen.
        """
        return {name: (x / self._rows.clamp(min=1)).float() for name, x in self._totals.items()}

    def compute(self) -> Float[Tensor, "heads queries keys"]:
        """The mean weights, where all samples have as many queries and keys.

        Raises:
            ValueError: they have not, or nothing was seen.
        """
        if self._mean is None:
            raise ValueError("there is no mean map: nothing was recorded, or sizes differ")
        return self._mean / self._samples

    @property
    def has_map(self) -> bool:
        """Whether there is a mean map."""
        return self._mean is not None


@torch.no_grad()
def attention_profile(
    model: nn.Module, run: Callable[[], object], *, sites: Sites | None = None
) -> dict[str, Profile]:
    """Runs a model once and keeps how the heads of each layer spread their weight.

    Args:
        model: any model with attention layers.
        run: runs it, over as much as is to be looked at.
        sites: the layers; all by default.

    Raises:
        ValueError: a layer's weights are not to be had, or NaN, with the layer's name.

    Example:
        >>> import core_attn
        >>> model = core_attn.MultiHeadAttention(8, heads=2)
        >>> found = attention_profile(model, lambda: model(torch.randn(3, 5, 8)))
        >>> found[""].compute().shape
        torch.Size([2, 5, 5])
    """
    sites = find_sites(model) if sites is None else sites
    found = {name: Profile() for name in sites}

    def keep(name: str, x: Tensor) -> None:
        try:
            found[name].update(x)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    with sites.edit("pattern", {name: partial(keep, name) for name in sites}):
        run()
    return {name: profile for name, profile in found.items() if profile.numbers()}


def profile_table(profiles: Mapping[str, Profile]) -> pl.DataFrame:
    """One row per head: `layer`, `name`, `head`, the numbers, and `softmax`.

    Example:
        >>> profile = Profile()
        >>> profile.update(torch.full((1, 2, 2, 2), 0.5))
        >>> profile_table({"a": profile}).height
        2
    """
    rows = []
    for layer, (name, profile) in enumerate(profiles.items()):
        numbers = profile.numbers()
        for head in range(len(numbers["entropy"])):
            row = {"layer": layer, "name": name, "head": head}
            row |= {key: float(numbers[key][head]) if key in numbers else None for key in NUMBERS}
            rows.append(row | {"softmax": profile.softmax})
    schema = {"layer": pl.Int64, "name": pl.String, "head": pl.Int64}
    schema |= dict.fromkeys(NUMBERS, pl.Float64) | {"softmax": pl.Boolean}
    return pl.DataFrame(rows, schema=schema)
