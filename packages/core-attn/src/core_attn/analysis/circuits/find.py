"""From prompts to the heads of a circuit, and the check by ablation."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..prompts import checked
from ..sites import Sites, find_sites
from .autoencoder import HeadAutoencoder, train
from .scores import distinct_codes, edge_circuit, edge_counts, edge_scores

Head = tuple[str, int]


@torch.no_grad()
def head_outputs(
    model: nn.Module,
    prompts: Sequence[Int[Tensor, "... _tokens"]],
    *,
    position: Literal["mean", "last"] = "mean",
    sites: Sites | None = None,
) -> Float[Tensor, "prompts heads dim"]:
    """What every head adds to the residual stream, layer by layer, without the output's bias.

    Args:
        model: a decoder, in evaluation mode.
        prompts: token ids, run one by one, so that lengths may differ.
        position: the mean over all tokens, or the last one.
        sites: the attention layers; found by default.

    Raises:
        TypeError: a prompt is no tensor of integers.
        ValueError: an unknown position, no prompts, an empty one, one longer than the context,
            several sequences in one, or ids outside of the vocabulary.

    Example:
        >>> import core_attn
        >>> layer = core_attn.MultiHeadAttention(8, heads=2)
        >>> model = nn.Sequential(nn.Embedding(5, 8), layer).eval()
        >>> head_outputs(model, [torch.tensor([1, 2, 3])]).shape
        torch.Size([1, 2, 8])
    """
    if position not in ("mean", "last"):
        raise ValueError(f"position must be 'mean' or 'last', got {position!r}")
    prompts = checked(model, prompts)
    sites = find_sites(model) if sites is None else sites
    found: list[Tensor] = []

    def keep(site_weight: Tensor, x: Tensor) -> None:
        z = x.mean(1) if position == "mean" else x[:, -1]  # (1, heads, head dim)
        slices = site_weight.unflatten(1, (z.shape[1], -1))
        parts.append(torch.einsum("bhd,ehd->bhe", z, slices)[0].float())

    changes = {
        name: (lambda x, weight=site.output_weight: keep(weight, x)) for name, site in sites.items()
    }
    with sites.edit("heads", changes):
        for prompt in prompts:
            parts: list[Tensor] = []
            model(prompt)
            found.append(torch.cat(parts))
    return torch.stack(found)


@dataclass(frozen=True)
class Circuit:
    """Heads and pairs of heads by how much the positive examples set them apart.

    Attributes:
        heads: layer names and heads, in the order of the scores.
        counts: for each head, codes that only positive examples have.
        edges: for each pair of heads, the same of pairs of codes.
        codes: of all examples.
        model: the autoencoder.
    """

    heads: Sequence[Head]
    counts: Float[Tensor, " heads"]
    edges: Float[Tensor, "heads heads"]
    codes: Int[Tensor, "examples heads"]
    model: HeadAutoencoder

    def table(self) -> pl.DataFrame:
        """One row per head, best first: `name`, `head`, `codes`, `node`, `pairs`, `edge`.

        `codes` and `pairs` count codes, and places among the strongest pairs; `node` and `edge`
        are their softmaxes. Heads with as many codes come by `pairs`.
        """
        node, pairs = self.counts.softmax(0), edge_counts(self.edges)
        columns = {
            "name": [name for name, _ in self.heads],
            "head": [head for _, head in self.heads],
            "codes": self.counts.tolist(),
            "node": node.tolist(),
            "pairs": pairs.tolist(),
            "edge": edge_circuit(self.edges).tolist(),
        }
        return pl.DataFrame(columns).sort("codes", "pairs", descending=True, maintain_order=True)

    def top(self, count: int) -> list[Head]:
        """The heads with the most codes of their own."""
        return list(self.table().head(count).select("name", "head").iter_rows())


def find_circuit(
    model: nn.Module,
    positive: Sequence[Int[Tensor, "... _tokens"]],
    negative: Sequence[Int[Tensor, "... _tokens"]],
    *,
    features: int = 200,
    examples: int = 10,
    steps: int = 500,
    lr: float = 1e-3,
    sparsity: float = 0.02,
    position: Literal["mean", "last"] = "mean",
    normalize: bool = False,
    seed: int = 0,
) -> Circuit:
    """Ranks the heads of a decoder by the codes that a task needs and its negation does not.

    Args:
        model: a decoder, in evaluation mode.
        positive: prompts on which it can do the task.
        negative: as many on which it cannot.
        features: of the autoencoder.
        examples: drawn for its training from all prompts.
        steps: of its training.
        lr: of its training.
        sparsity: of its codes.
        position: as in `head_outputs`.
        normalize: whether counts are divided by the distinct codes.
        seed: of its initialization and the draw.

    Raises:
        ValueError: different numbers of positive and negative prompts, a size or rate out of
            range, or more features than heads to learn from, most of which no head would ever use.
    """
    for name, value in (("features", features), ("examples", examples), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not (math.isfinite(lr) and lr > 0 and math.isfinite(sparsity) and sparsity >= 0):
        raise ValueError(f"lr must be positive, sparsity not negative; got {lr} and {sparsity}")
    if len(positive) != len(negative) or not positive:
        raise ValueError(
            f"expected as many negative as positive prompts; got {len(positive)} positive and "
            f"{len(negative)} negative"
        )
    sites = find_sites(model)
    x = head_outputs(model, [*positive, *negative], position=position, sites=sites)
    heads = [(name, head) for name, site in sites.items() for head in range(site.num_heads)]
    if features > (rows := min(examples, len(x)) * len(heads)):
        raise ValueError(
            f"{features} features for {rows} outputs of heads ({min(examples, len(x))} examples, "
            f"{len(heads)} heads): most would be dead; take fewer"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chosen = torch.randperm(len(x))[:examples]
        autoencoder = HeadAutoencoder(x.shape[-1], features)
    train(autoencoder, x[chosen], steps=steps, lr=lr, sparsity=sparsity)
    codes = autoencoder.discrete(x)
    counts, _ = distinct_codes(codes, normalize=normalize)
    edges = edge_scores(codes, features, normalize=normalize)
    return Circuit(heads, counts, edges, codes, autoencoder)


@contextmanager
def ablated(
    model: nn.Module, heads: Sequence[Head], means: dict[str, Float[Tensor, "heads dim"]]
) -> Iterator[None]:
    """While open, the outputs of these heads are what they are on average, at every position.

    Args:
        model: a decoder.
        heads: layer names and heads.
        means: for each layer, the mean of its heads before the projection, over the negatives
            (`with find_sites(model).record("heads", …)`).

    Raises:
        ValueError: a layer or a head that is not there.
    """
    sites, gone = find_sites(model), {}
    for name, head in heads:
        if name not in sites or name not in means:
            raise ValueError(f"no layer is named {name!r}; layers: {', '.join(sites)}")
        if not 0 <= head < len(means[name]):
            raise ValueError(f"{name} has heads 0 to {len(means[name]) - 1}, not {head}")
        gone.setdefault(name, []).append(head)

    def change(which: list[int], mean: Tensor, x: Tensor) -> Tensor:
        x = x.clone()
        x[..., which, :] = mean[which].to(x.dtype)
        return x

    changes = {
        name: (lambda x, which=which, mean=means[name]: change(which, mean, x))
        for name, which in gone.items()
    }
    with sites.edit("heads", changes):
        yield
