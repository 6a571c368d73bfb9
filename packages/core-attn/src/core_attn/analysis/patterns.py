"""What kinds of attention there are: codes of maps, their clusters, names by rules."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .sites import Sites
from .strength import Layout, check_pattern, offset_map

SIDE = 64
CLUSTERS = range(4, 11)


class PatternAutoencoder(nn.Module):
    """Four strided convolutions to a code of 16 numbers, and back.

    Args:
        side: of the maps, a multiple of 16.
        code: numbers that describe a map.

    Source: Li et al., 2023, arXiv 2303.13731, view D; the architecture is this project's choice.

    Example:
        >>> model = PatternAutoencoder(side=16)
        >>> model(torch.zeros(2, 1, 16, 16)).shape, model.encode(torch.zeros(2, 1, 16, 16)).shape
        (torch.Size([2, 1, 16, 16]), torch.Size([2, 16]))
    """

    widths = (16, 32, 64, 128)

    def __init__(self, side: int = SIDE, code: int = 16):
        super().__init__()
        if side % 16:
            raise ValueError(f"side must be a multiple of 16, got {side}")
        small = side // 16
        encoder, decoder, before = [], [], 1
        for width in self.widths:
            encoder += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GELU()]
            decoder = [
                nn.GELU(),
                nn.ConvTranspose2d(width, before, 4, stride=2, padding=1),
                *decoder,
            ]
            before = width
        inner = self.widths[-1] * small**2
        self.encode = nn.Sequential(*encoder, nn.Flatten(), nn.Linear(inner, code))
        unflatten = nn.Unflatten(1, (self.widths[-1], small, small))
        self.decode = nn.Sequential(nn.Linear(code, inner), unflatten, *decoder)

    def forward(self, maps: Float[Tensor, "maps 1 side side"]) -> Float[Tensor, "maps 1 side side"]:
        """The maps as the codes remember them."""
        return self.decode(self.encode(maps))


def prepared(
    weights: Float[Tensor, "maps patches patches"],
) -> Float[Tensor, "maps 1 side side"]:
    """Maps as the autoencoder takes them: rows that sum to 1, log(1 + weight x patches).

    More than 64 patches are resized to 64 by area; fewer are padded with zeros to a multiple of 16.

    Args:
        weights: among patches, the prefix cut off.

    Example:
        >>> prepared(torch.eye(36)[None]).shape
        torch.Size([1, 1, 48, 48])
    """
    patches = weights.shape[-1]
    rows = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)
    maps = torch.log1p(rows * patches)[:, None]
    if patches > SIDE:
        return F.interpolate(maps, (SIDE, SIDE), mode="area")
    missing = -patches % 16
    return F.pad(maps, (0, missing, 0, missing))


def train_autoencoder(
    maps: Float[Tensor, "maps 1 side side"],
    *,
    epochs: int = 30,
    batch_size: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PatternAutoencoder:
    """Fits a `PatternAutoencoder` by AdamW to the mean squared error; the same for the same seed.

    Args:
        maps: from `prepared`.
        epochs: over the maps.
        batch_size: maps per step.
        lr: of AdamW.
        seed: of weights and order.
        progress: called with the epochs done and their total.

    Example:
        >>> maps = prepared(torch.eye(16).expand(8, 16, 16))
        >>> train_autoencoder(maps, epochs=1).training
        False
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PatternAutoencoder(maps.shape[-1])
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        for epoch in range(epochs):
            for rows in torch.randperm(len(maps)).split(batch_size):
                optimizer.zero_grad()
                F.mse_loss(model(maps[rows]), maps[rows]).backward()
                optimizer.step()
            progress(epoch + 1, epochs)
    return model.eval()


class MapSample:
    """Attention maps of some images, in the little memory that the autoencoder needs.

    Args:
        layout: of the tokens.

    Attributes:
        owners: layer name, head and image of each map.

    Example:
        >>> sample = MapSample(Layout((4, 4), prefix=1))
        >>> sample.add("blocks.0", [5], torch.rand(1, 3, 17, 17).softmax(-1))
        >>> sample.owners[-1], sample.inputs().shape
        (('blocks.0', 2, 5), torch.Size([3, 1, 16, 16]))
    """

    def __init__(self, layout: Layout):
        self.layout = layout
        self.owners: list[tuple[str, int, int]] = []
        self._kinds: list[str] = []
        self._inputs: list[Tensor] = []
        self._offsets: list[Tensor] = []

    def add(
        self,
        layer: str,
        images: Sequence[int],
        weights: Float[Tensor, "images heads tokens tokens"],
    ) -> None:
        """Adds the maps of every head of a layer.

        Raises:
            ValueError: weights that do not fit the layout.
        """
        try:
            check_pattern(weights, self.layout)
        except ValueError as error:
            raise ValueError(f"{layer}: {error}") from error
        for image, of_heads in zip(images, weights.float().cpu(), strict=True):
            among = of_heads[:, self.layout.prefix :, self.layout.prefix :]
            self.owners += [(layer, head, image) for head in range(len(of_heads))]
            self._kinds += [pattern_name(one, self.layout) for one in of_heads]
            self._inputs.append(prepared(among))
            self._offsets.append(offset_map(among, self.layout))

    def inputs(self) -> Float[Tensor, "maps 1 side side"]:
        """The maps, prepared."""
        return torch.cat(self._inputs)

    def offsets(self) -> Float[Tensor, "maps rows columns"]:
        """The mean weight of each map by offset, no offset in the center."""
        return torch.cat(self._offsets)

    @property
    def kinds(self) -> list[str]:
        """The kind of each map, by `pattern_name`."""
        return self._kinds


@torch.no_grad()
def sample_maps(
    model: nn.Module,
    batches: Iterable[Tensor],
    layout: Layout,
    sites: Sites,
    *,
    images: int | None = None,
    most: int = 5000,
) -> MapSample:
    """Runs images through a model and keeps maps of all heads, of images evenly chosen.

    Args:
        model: in evaluation mode.
        batches: inputs.
        layout: of the tokens.
        sites: the layers to look at.
        images: how many there are in all batches; counted, with all batches in memory, by default.
        most: maps at most; at least one image is kept.

    Example:
        >>> import core_attn
        >>> from core_attn.analysis import find_sites
        >>> model = nn.Sequential(core_attn.MultiHeadAttention(8, heads=2))
        >>> images = [torch.randn(3, 17, 8)]
        >>> found = sample_maps(model, images, Layout((4, 4)), find_sites(model), most=4)
        >>> sorted({image for _, _, image in found.owners})
        [0, 2]
    """
    if images is None:
        batches = list(batches)
        images = sum(map(len, batches))
    total, heads = images, sum(site.num_heads for site in sites.values())
    count = min(total, max(1, most // heads))
    chosen = set(torch.linspace(0, total - 1, count).round().long().tolist())
    sample, first = MapSample(layout), 0
    for inputs in batches:
        here = [image for image in range(first, first + len(inputs)) if image in chosen]
        first += len(inputs)
        if not here:
            continue
        rows = torch.tensor(here) - (first - len(inputs))
        keep = {name: partial(sample.add, name, here) for name in sites}
        with sites.edit("pattern", keep):
            model(inputs[rows])
    return sample


@dataclass(frozen=True)
class Patterns:
    """Attention maps, each described by a code and put in a cluster.

    Attributes:
        sample: the maps.
        codes: of each map.
        places: codes in two dimensions, by their principal axes.
        clusters: of each map.
        model: the autoencoder.
    """

    sample: MapSample
    codes: Float[Tensor, "maps code"]
    places: Float[Tensor, "maps 2"]
    clusters: Int[Tensor, " maps"]
    model: PatternAutoencoder

    def table(self) -> pl.DataFrame:
        """One row per map: `name`, `head`, `image`, `kind`, `cluster`, `x`, `y`."""
        numbers = zip(
            self.sample.owners, self.sample.kinds, self.clusters, self.places, strict=True
        )
        rows = [
            (*owner, kind, int(cluster), float(x), float(y))
            for owner, kind, cluster, (x, y) in numbers
        ]
        columns = ["name", "head", "image", "kind", "cluster", "x", "y"]
        return pl.DataFrame(rows, schema=columns, orient="row")

    def consistency(self) -> pl.DataFrame:
        """Per head its most frequent `cluster` and `kind`, and the `share` of images for each."""
        table, found = self.table(), pl.DataFrame()
        for column in ("cluster", "kind"):
            counted = table.group_by("name", "head", column, maintain_order=True).len()
            top = counted.sort("len", column, descending=[True, False]).group_by(
                "name", "head", maintain_order=True
            )
            share = (pl.col("len") / len({image for *_, image in self.sample.owners})).alias(
                f"{column}_share"
            )
            best = top.first().with_columns(share).drop("len")
            found = best if found.is_empty() else found.join(best, on=["name", "head"])
        return found.sort("name", "head")

    def mean_map(self, cluster: int) -> Float[Tensor, "side side"]:
        """The mean prepared map of a cluster, without padding."""
        side = min(SIDE, self.sample.layout.patches)
        return self.sample.inputs()[self.clusters == cluster].mean((0, 1))[:side, :side]

    def offset_profile(self, cluster: int) -> Float[Tensor, "rows columns"]:
        """The mean weights of a cluster by offset, no offset in the center."""
        return self.sample.offsets()[self.clusters == cluster].mean(0)

    @torch.no_grad()
    def gallery(self, steps: int = 5) -> Float[Tensor, "steps steps side side"]:
        """Maps decoded along the two principal axes of the codes, two deviations to each side."""
        center = self.codes.mean(0)
        _, spread, axes = torch.linalg.svd(self.codes - center, full_matrices=False)
        scale = spread[:2] / max(len(self.codes) - 1, 1) ** 0.5
        along = torch.linspace(-2, 2, steps)
        shift = torch.stack(torch.meshgrid(along, along, indexing="ij"), -1) * scale
        codes = center + shift @ axes[:2]
        side = min(SIDE, self.sample.layout.patches)
        maps = self.model.decode(codes.flatten(0, 1))[:, 0, :side, :side]
        return maps.unflatten(0, (steps, steps))


def find_patterns(
    sample: MapSample,
    *,
    epochs: int = 30,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Patterns:
    """Describes and clusters maps.

    Codes are clustered by k-means, into the number of clusters from 4 to 10 that has the best
    silhouette.

    Args:
        sample: the maps.
        epochs: of the autoencoder.
        seed: of training and clustering.
        progress: called with the epochs done and their total.

    Raises:
        ValueError: fewer than 8 maps.

    Example:
        >>> sample = MapSample(Layout((4, 4), prefix=1))
        >>> sample.add("a", [0, 1, 2, 3], torch.rand(4, 3, 17, 17).softmax(-1))
        >>> find_patterns(sample, epochs=1).codes.shape
        torch.Size([12, 16])
    """
    if len(sample.owners) < 8:
        raise ValueError(f"{len(sample.owners)} maps are too few to cluster; at least 8")
    inputs = sample.inputs()
    model = train_autoencoder(inputs, epochs=epochs, seed=seed, progress=progress)
    with torch.no_grad():
        codes = torch.cat([model.encode(part) for part in inputs.split(256)])
    return Patterns(sample, codes, _principal(codes), _clusters(codes, seed), model)


def _principal(codes: Tensor) -> Tensor:
    centered = codes - codes.mean(0)
    _, _, axes = torch.linalg.svd(centered, full_matrices=False)
    return centered @ axes[:2].T


def _clusters(codes: Tensor, seed: int) -> Tensor:
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    rows, best = codes.numpy(), (-2.0, None)
    for count in CLUSTERS:
        if count >= len(rows):
            break
        means = KMeans(count, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
        labels = means.fit_predict(rows)
        score = silhouette_score(rows, labels, sample_size=min(2000, len(rows)), random_state=seed)
        if score > best[0]:
            best = score, labels
    return torch.as_tensor(best[1]).long()


def pattern_name(weights: Float[Tensor, "tokens tokens"], layout: Layout) -> str:
    """The kind of one attention matrix, by rules on its numbers.

    In this order: "class sink" (most of the patches' weight lies on the prefix), "self", "local
    ring" (within one hop), "row" and "column" (along one axis), "single key" (one vertical
    stripe), "uniform", else "content".

    Args:
        weights: of one head, after the softmax.
        layout: of the tokens.

    Source: the rules are this project's.

    Example:
        >>> pattern_name(torch.eye(10), Layout((3, 3), prefix=1))
        'self'
    """
    among = weights[layout.prefix :, layout.prefix :]
    if layout.prefix and float(weights[layout.prefix :, : layout.prefix].sum(-1).mean()) > 0.5:
        return "class sink"
    among = among / among.sum(-1, keepdim=True).clamp(min=1e-9)
    hops = layout.hops()
    if float(among.diagonal().mean()) > 0.5:
        return "self"
    if float((among * (hops <= 1)).sum(-1).mean()) > 0.5 and max(layout.grid) > 3:
        return "local ring"
    places = layout.places()
    shift = (places[None, :] - places[:, None]).abs()
    same_row, same_column = (float((among * (shift[..., i] == 0)).sum(-1).mean()) for i in (0, 1))
    if same_row > 0.5 and same_row > same_column:
        return "row"
    if same_column > 0.5:
        return "column"
    if float(among.mean(0).max()) > 0.5:
        return "single key"
    entropy = float(torch.special.entr(among).sum(-1).mean())
    return "uniform" if entropy > 0.95 * torch.tensor(float(layout.patches)).log() else "content"
