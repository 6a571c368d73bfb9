"""What kinds of attention there are: codes of maps, their clusters, names by rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

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
    weights: Float[Tensor, "maps patches patches"], side: int | None = None
) -> Float[Tensor, "maps 1 side side"]:
    """Maps as the autoencoder takes them: rows that sum to 1, log(1 + weight x patches).

    Args:
        weights: among patches, the prefix cut off.
        side: to which maps are resized (by area); by default 64, or less for fewer patches.
    """
    patches = weights.shape[-1]
    if side is None:
        side = min(SIDE, -(-patches // 16) * 16)
    rows = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)
    maps = torch.log1p(rows * patches)[:, None]
    if patches == side:
        return maps
    return F.interpolate(maps, (side, side), mode="area" if patches > side else "nearest")


def train_autoencoder(
    maps: Float[Tensor, "maps 1 side side"],
    *,
    epochs: int = 30,
    batch_size: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
) -> PatternAutoencoder:
    """Fits a `PatternAutoencoder` by AdamW to the mean squared error; the same for the same seed.

    Example:
        >>> maps = prepared(torch.eye(16).expand(8, 16, 16))
        >>> train_autoencoder(maps, epochs=1).training
        False
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PatternAutoencoder(maps.shape[-1])
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        for _ in range(epochs):
            for rows in torch.randperm(len(maps)).split(batch_size):
                optimizer.zero_grad()
                F.mse_loss(model(maps[rows]), maps[rows]).backward()
                optimizer.step()
    return model.eval()


@dataclass(frozen=True)
class Patterns:
    """Attention maps, each described by a code and put in a cluster.

    Attributes:
        owners: layer name, head and image of each map.
        codes: of each map.
        places: codes in two dimensions, by their principal axes.
        clusters: of each map.
        model: the autoencoder.
        maps: the weights among patches.
        layout: of the tokens.
    """

    owners: Sequence[tuple[str, int, int]]
    codes: Float[Tensor, "maps code"]
    places: Float[Tensor, "maps 2"]
    clusters: Int[Tensor, " maps"]
    model: PatternAutoencoder
    maps: Float[Tensor, "maps patches patches"]
    layout: Layout

    def table(self) -> pl.DataFrame:
        """One row per map: `name`, `head`, `image`, `cluster`, `x`, `y`."""
        rows = [
            (*owner, int(cluster), float(x), float(y))
            for owner, cluster, (x, y) in zip(self.owners, self.clusters, self.places, strict=True)
        ]
        return pl.DataFrame(
            rows, schema=["name", "head", "image", "cluster", "x", "y"], orient="row"
        )

    def consistency(self) -> pl.DataFrame:
        """Per head its most frequent `cluster`, and the `share` of images where it is that one."""
        counted = self.table().group_by("name", "head", "cluster").len()
        top = counted.sort("len", "cluster", descending=[True, False]).group_by(
            "name", "head", maintain_order=True
        )
        total = counted.group_by("name", "head").agg(pl.col("len").sum().alias("total"))
        return (
            top.first()
            .join(total, on=["name", "head"])
            .with_columns((pl.col("len") / pl.col("total")).alias("share"))
            .drop("len", "total")
        )

    def mean_map(self, cluster: int) -> Float[Tensor, "patches patches"]:
        """The mean weights of a cluster."""
        return self.maps[self.clusters == cluster].mean(0)

    @torch.no_grad()
    def gallery(self, steps: int = 5) -> Float[Tensor, "steps steps side side"]:
        """Maps decoded along the two principal axes of the codes, two deviations to each side."""
        center = self.codes.mean(0)
        _, spread, axes = torch.linalg.svd(self.codes - center, full_matrices=False)
        scale = spread[:2] / max(len(self.codes) - 1, 1) ** 0.5
        along = torch.linspace(-2, 2, steps)
        shift = torch.stack(torch.meshgrid(along, along, indexing="ij"), -1) * scale
        codes = center + shift @ axes[:2]
        return self.model.decode(codes.flatten(0, 1))[:, 0].unflatten(0, (steps, steps))


def find_patterns(
    maps: Mapping[str, Float[Tensor, "images heads tokens tokens"]],
    layout: Layout,
    *,
    most: int = 5000,
    epochs: int = 30,
    seed: int = 0,
) -> Patterns:
    """Describes and clusters the attention of heads over images.

    Maps are sampled evenly over heads and images; codes are clustered by k-means, the number of
    clusters from 4 to 10 by the best silhouette.

    Args:
        maps: for each layer, its weights.
        layout: of the tokens.
        most: maps at most.
        epochs: of the autoencoder.
        seed: of sampling, training and clustering.

    Raises:
        ValueError: weights that do not fit the layout, or fewer than 8 maps.

    Example:
        >>> weights = torch.rand(4, 3, 17, 17).softmax(-1)
        >>> found = find_patterns({"a": weights}, Layout((4, 4), prefix=1), epochs=1)
        >>> found.codes.shape
        torch.Size([12, 16])
    """
    owners, chosen = [], []
    for name, weights in maps.items():
        check_pattern(weights, layout)
        among = weights[..., layout.prefix :, layout.prefix :]
        for head in range(among.shape[1]):
            for image in range(len(among)):
                owners.append((name, head, image))
                chosen.append(among[image, head])
    if len(owners) < 8:
        raise ValueError(f"{len(owners)} maps are too few to cluster; at least 8")
    if len(owners) > most:
        kept = torch.linspace(0, len(owners) - 1, most).round().long().tolist()
        owners, chosen = [owners[i] for i in kept], [chosen[i] for i in kept]
    weights = torch.stack(chosen)
    inputs = prepared(weights)
    model = train_autoencoder(inputs, epochs=epochs, seed=seed)
    with torch.no_grad():
        codes = torch.cat([model.encode(part) for part in inputs.split(256)])
    places = _principal(codes)
    return Patterns(owners, codes, places, _clusters(codes, seed), model, weights, layout)


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


def offset_profile(patterns: Patterns, cluster: int) -> Float[Tensor, "rows columns"]:
    """The mean weights of a cluster by offset, no offset in the center."""
    return offset_map(patterns.mean_map(cluster), patterns.layout)
