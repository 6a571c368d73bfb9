"""How strongly and how far each head of a vision transformer attends, in constant memory."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .sites import Sites

NUMBERS = (
    "cls_to_cls", "cls_to_patch", "patch_to_cls", "self_mass", "mean_distance", "entropy",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Where the tokens of an image stand.

    Attributes:
        grid: rows and columns of patches, in raster order after the prefix.
        prefix: leading tokens that are no patches (class, distillation, registers).

    Raises:
        ValueError: a side below 1, or fewer than no tokens.
    """

    grid: tuple[int, int]
    prefix: int = 1

    def __post_init__(self):
        if min(self.grid) < 1 or self.prefix < 0:
            raise ValueError(
                f"grid must have sides of at least 1 and prefix not be negative; got {self.grid} "
                f"and {self.prefix}"
            )

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """All tokens of an image."""
        return self.prefix + self.patches

    def places(self) -> Int[Tensor, "patches 2"]:
        """Row and column of every patch."""
        return torch.cartesian_prod(*(torch.arange(side) for side in self.grid))

    def hops(self) -> Int[Tensor, "patches patches"]:
        """Chebyshev distance of every pair of patches."""
        places = self.places()
        return (places[:, None] - places).abs().amax(-1)

    def distances(self) -> Float[Tensor, "patches patches"]:
        """Euclidean distance of every pair of patches, in patches."""
        places = self.places().float()
        return torch.cdist(places, places)


class _Rows:
    """Rows one after the other in one block, which doubles when it is full.

    Many small results that stay, between the large ones that go, would split free memory so that
    no next batch fits in it, and memory would grow by a batch every time.
    """

    def __init__(self, like: Tensor):
        self._block, self._count = like.new_empty(64, *like.shape[1:]), 0

    def append(self, rows: Tensor) -> None:
        """Copies rows."""
        start, self._count = self._count, self._count + len(rows)
        if self._count > len(self._block):
            larger = rows.new_empty(2 * self._count, *rows.shape[1:])
            larger[:start] = self._block[:start]
            self._block = larger
        self._block[start : self._count] = rows

    def seen(self) -> Tensor:
        """All of them."""
        return self._block[: self._count]


class Strength:
    """A reduction that keeps, per image and head, how strongly and how far it attends.

    Per head: "cls_to_cls", "cls_to_patch" (summed), "patch_to_cls" and "self_mass" (means over
    query patches), "mean_distance" (mean over query patches of the weights times the distance, in
    patches; the share of the class token counts as 0), "entropy" (nats, over all queries and
    keys); per head and distance k "khop_mass" (mean over query patches of the weights at
    Chebyshev distance k, summed) and "khop_mean" (the mean weight of such a pair, which does not
    shrink at the border). "cls" is the first prefix token among the queries, and all prefix tokens
    among the keys of "patch_to_cls".

    Args:
        layout: of the tokens.

    Raises:
        ValueError: in `update`, the weights do not fit the layout, are NaN or do not sum to 1.

    Source: Li et al., 2023, arXiv 2303.13731, view C; definitions are this project's.

    Example:
        >>> strength = Strength(Layout((2, 3), prefix=1))
        >>> strength.update(torch.full((1, 2, 7, 7), 1 / 7))
        >>> round(float(strength.numbers()["patch_to_cls"][0, 0]), 4)
        0.1429
    """

    def __init__(self, layout: Layout):
        self.layout = layout
        hops = layout.hops()
        self._rings = torch.nn.functional.one_hot(hops).float()  # query, key, distance
        self._pairs = self._rings.sum((0, 1))
        self._distances = layout.distances()
        self._rows: dict[str, _Rows] = {}
        self._mean = torch.zeros(())
        self._images = 0

    @torch.no_grad()
    def update(self, x: Float[Tensor, "images heads tokens tokens"]) -> None:
        """Takes the weights of some images."""
        x = x.float().cpu()
        check_pattern(x, self.layout)
        prefix = self.layout.prefix
        among = x[..., prefix:, prefix:]
        mass = torch.einsum("bhqk,qkd->bhd", among, self._rings)
        found = {
            "self_mass": among.diagonal(dim1=-2, dim2=-1).mean(-1),
            "mean_distance": (among * self._distances).sum(-1).mean(-1),
            "entropy": torch.special.entr(x).sum(-1).mean(-1),
            "khop_mass": mass / self.layout.patches,
            "khop_mean": mass / self._pairs,
        }
        if prefix:
            found["cls_to_cls"] = x[..., 0, 0]
            found["cls_to_patch"] = x[..., 0, prefix:].sum(-1)
            found["patch_to_cls"] = x[..., prefix:, :prefix].sum(-1).mean(-1)
        for name, values in found.items():
            self._rows.setdefault(name, _Rows(values)).append(values)
        if not self._images:
            self._mean = torch.zeros(among.shape[1:])
        self._mean += among.sum(0)
        self._images += len(x)

    def numbers(self) -> dict[str, Float[Tensor, "images heads ..."]]:
        """Everything per image and head."""
        return {name: rows.seen() for name, rows in self._rows.items()}

    def compute(self) -> Float[Tensor, "heads patches patches"]:
        """The mean weights among patches over all images."""
        if not self._images:
            raise ValueError("nothing was recorded: the layer did not run")
        return self._mean / self._images

    def offsets(self) -> Float[Tensor, "heads rows columns"]:
        """The mean weight of a patch at each offset (dy, dx), no offset in the center.

        At every offset the mean is over the pairs of patches that have it, (2 gh - 1, 2 gw - 1).
        """
        return offset_map(self.compute(), self.layout)


def offset_map(
    weights: Float[Tensor, "*heads patches patches"], layout: Layout
) -> Float[Tensor, "*heads rows columns"]:
    """Weights among patches as a function of the offset from query to key, mean over pairs.

    Raises:
        ValueError: weights that are not of these patches.

    Example:
        >>> offset_map(torch.eye(4), Layout((2, 2), prefix=0))[1, 1]
        tensor(1.)
    """
    rows, columns = layout.grid
    if weights.shape[-2:] != (layout.patches, layout.patches):
        raise ValueError(
            f"weights among {layout.patches} patches, a grid of {rows}x{columns}, are needed; got "
            f"shape {tuple(weights.shape)}"
        )
    places = layout.places()
    shift = places[None, :] - places[:, None]
    cell = (shift[..., 0] + rows - 1) * (2 * columns - 1) + shift[..., 1] + columns - 1
    size = (2 * rows - 1) * (2 * columns - 1)
    flat = weights.reshape(-1, cell.numel())
    total = flat.new_zeros(len(flat), size).index_add_(1, cell.flatten(), flat)
    pairs = flat.new_zeros(size).index_add_(0, cell.flatten(), flat.new_ones(cell.numel()))
    return (total / pairs).reshape(*weights.shape[:-2], 2 * rows - 1, 2 * columns - 1)


def check_pattern(x: Tensor, layout: Layout) -> None:
    """Requires weights (images, heads, tokens, tokens) after a softmax over that layout.

    Raises:
        ValueError: they are not; the message gives the numbers.
    """
    rows, columns = layout.grid
    if x.dim() != 4 or x.shape[-1] != x.shape[-2] or x.shape[-1] != layout.tokens:
        raise ValueError(
            f"weights over {tuple(x.shape[-2:])} tokens do not fit {layout.prefix} prefix tokens "
            f"and a grid of {rows}x{columns} = {layout.patches} patches"
        )
    if not x.isfinite().all():
        raise ValueError("weights contain NaN or infinity")
    sums = x.sum(-1)
    if ((sums - 1).abs() > 1e-2).any():
        worst = float(sums.flatten()[(sums.flatten() - 1).abs().argmax()])
        raise ValueError(
            f"a row of weights sums to {worst:.4g} instead of 1: this attention is no softmax over "
            "all tokens, for which these views are defined"
        )


@torch.no_grad()
def attention_strength(
    model: nn.Module, batches: Iterable[Tensor], layout: Layout, sites: Sites
) -> dict[str, Strength]:
    """Runs images through a model and keeps each layer's `Strength`, in constant memory.

    Args:
        model: in evaluation mode.
        batches: inputs, taken one after the other.
        layout: of the tokens.
        sites: the layers to look at.

    Raises:
        ValueError: a layer's weights do not fit the layout, with the layer's name.

    Example:
        >>> import core_attn
        >>> from core_attn.analysis import find_sites
        >>> model = nn.Sequential(core_attn.MultiHeadAttention(8, heads=2))
        >>> found = attention_strength(
        ...     model, [torch.randn(3, 5, 8)], Layout((2, 2), prefix=1), find_sites(model))
        >>> found["0"].numbers()["khop_mass"].shape
        torch.Size([3, 2, 2])
    """
    found = {name: Strength(layout) for name in sites}

    def keep(name: str, images: int):
        def update(x: Tensor) -> None:
            if len(x) != images:
                raise ValueError(
                    f"{name}: {len(x)} maps for {images} images: windows have no single grid"
                )
            try:
                found[name].update(x)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

        return update

    for inputs in batches:
        with sites.edit("pattern", {name: keep(name, len(inputs)) for name in sites}):
            model(inputs)
    return found


def strength_table(strengths: dict[str, Strength]) -> pl.DataFrame:
    """One row per head: `layer`, `name`, `head`, the numbers and `khop_mass_k`, `khop_mean_k`.

    Means over images.
    """
    rows = []
    for layer, (name, strength) in enumerate(strengths.items()):
        numbers = {key: values.mean(0) for key, values in strength.numbers().items()}
        for head in range(numbers["entropy"].shape[0]):
            row = {"layer": layer, "name": name, "head": head}
            row |= {key: float(numbers[key][head]) for key in NUMBERS if key in numbers}
            for key in ("khop_mass", "khop_mean"):
                row |= {f"{key}_{k}": float(x) for k, x in enumerate(numbers[key][head])}
            rows.append(row)
    return pl.DataFrame(rows)
