"""DHA from a checkpoint: which heads to fuse, how far, and the fusion itself."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .models import Decoder
from .models.dha import DHAConfig, FusingAttention, HeadMap, stored_heads
from .models.transformer import SelfAttention, TransformerConfig

Method = Literal["adaptive", "cka", "contiguous"]


class Groups(NamedTuple):
    """For every layer, the group of each of its key heads and of its value heads."""

    keys: tuple[HeadMap, ...]
    values: tuple[HeadMap, ...]

    @property
    def total(self) -> int:
        """Heads that are kept."""
        return sum(max(one) + 1 for one in (*self.keys, *self.values))


def cka(heads: Float[Tensor, "heads head_dim features"]) -> Float[Tensor, "heads heads"]:
    """Linear centered kernel alignment of the heads' weights, 1 for equal ones.

    Source: Kornblith et al., 2019, "Similarity of Neural Network Representations Revisited",
        arXiv 1905.00414, eq. (3).

    Example:
        >>> import torch
        >>> heads = torch.randn(1, 4, 9)
        >>> cka(torch.cat((heads, 2 * heads)))[0, 1].item() > 0.999
        True
    """
    x = heads.double().transpose(1, 2)
    x = x - x.mean(1, keepdim=True)
    cross = torch.einsum("ifa,jfb->ijab", x, x).square().sum((2, 3))
    own = cross.diagonal().sqrt()
    return cross / (own[:, None] * own).clamp(min=1e-30)


def grouped(similarity: Float[Tensor, "heads heads"], groups: int, seed: int = 0) -> HeadMap:
    """Heads in so many groups, similar ones together.

    Agglomerative clustering, then simulated annealing of the within-group similarity; no group is
    empty. Groups are numbered by their first head.

    Example:
        >>> import torch
        >>> s = torch.tensor([[1.0, 0.0, 0.9], [0.0, 1.0, 0.1], [0.9, 0.1, 1.0]])
        >>> grouped(s, 2)
        (0, 1, 0)
    """
    heads = len(similarity)
    if not 1 <= groups <= heads:
        raise ValueError(f"groups must be in [1, {heads}], got {groups}")
    s = similarity.double()
    clusters = [[head] for head in range(heads)]
    while len(clusters) > groups:
        pairs = [(i, j) for i in range(len(clusters)) for j in range(i)]
        i, j = max(pairs, key=lambda p: s[clusters[p[0]]][:, clusters[p[1]]].mean().item())
        clusters[j] += clusters.pop(i)
    assigned = [next(g for g, c in enumerate(clusters) if head in c) for head in range(heads)]
    if 1 < groups < heads:
        assigned = _annealed(s.tolist(), assigned, groups, seed)
    order: dict[int, int] = {}
    return tuple(order.setdefault(group, len(order)) for group in assigned)


def _annealed(s: list[list[float]], start: list[int], groups: int, seed: int) -> list[int]:
    """Moves single heads, worse moves ever less often; the best state seen is returned."""
    heads = len(start)
    generator = torch.Generator().manual_seed(seed)
    steps = 60 * heads
    draws = torch.rand(steps, 3, generator=generator).tolist()
    now, best = list(start), list(start)

    def gain(state: Sequence[int], head: int, group: int) -> float:
        return sum(s[head][j] for j in range(heads) if j != head and state[j] == group)

    value = best_value = 0.0
    for step, (a, b, c) in enumerate(draws):
        head, group = int(a * heads), int(b * groups)
        if now[head] == group or now.count(now[head]) == 1:
            continue
        change = gain(now, head, group) - gain(now, head, now[head])
        temperature = 0.2 * (1 - step / steps) + 1e-9
        if change >= 0 or c < math.exp(change / temperature):
            now[head] = group
            value += change
            if value > best_value + 1e-12:
                best, best_value = list(now), value
    return best


def residual(heads: Float[Tensor, "heads head_dim features"], groups: HeadMap) -> float:
    """Mean squared distance of the heads to the mean of their group."""
    one_hot = F.one_hot(torch.tensor(groups)).double()
    mean = (one_hot / one_hot.sum(0)).T @ heads.double().flatten(1)
    return (heads.double().flatten(1) - one_hot @ mean).square().sum(1).mean().item()


def allocated(costs: Sequence[Sequence[float]], budget: int) -> list[int]:
    """How many heads each place keeps, at least 1, exactly `budget` in all.

    Starts with one each and adds where the cost falls most: the least total for convex costs.

    Args:
        costs: for every place (a layer's keys or values), the cost of 1, 2, ... heads.
        budget: heads in all.

    Raises:
        ValueError: the budget is below one head for each place, or above all.

    Example:
        >>> allocated([[9.0, 1.0, 0.0], [2.0, 1.5, 0.0]], 4)
        [3, 1]
    """
    check_budget(budget, len(costs), sum(map(len, costs)))
    kept = [1] * len(costs)
    while sum(kept) < budget:
        open_places = [i for i, cost in enumerate(costs) if kept[i] < len(cost)]
        best = max(open_places, key=lambda i: costs[i][kept[i] - 1] - costs[i][kept[i]])
        kept[best] += 1
    return kept


def check_budget(budget: int, places: int, most: int) -> None:
    """Requires one head for each place, and no more than there are.

    Raises:
        ValueError: the budget is another.
    """
    if not places <= budget <= most:
        raise ValueError(f"budget must be in [{places}, {most}] heads, got {budget}")


def planned(
    model: Decoder, budget: float | int, method: Method = "adaptive", seed: int = 0
) -> Groups:
    """Which key and value heads of a Transformer to fuse.

    Args:
        model: a Transformer; its own key and value heads are the heads.
        budget: heads to keep in all, or their share where below 1 (or 1.0).
        method: "adaptive" spends the budget where fusing costs most, "cka" evenly, both in groups
            of similar heads; "contiguous" evenly in runs of neighbors.
        seed: of the grouping.

    Raises:
        ValueError: the model is no Transformer, or the budget is out of range.
    """
    attentions = attentions_of(model)
    places = [heads for one in attentions for heads in stored_heads(one)[1:]]
    total = sum(map(len, places))
    wanted = round(budget * total) if isinstance(budget, float) else budget
    check_budget(wanted, len(places), total)
    if method == "adaptive":
        choices = []
        for heads in places:
            similarity = cka(heads.detach())
            choices.append([grouped(similarity, g + 1, seed) for g in range(len(heads))])
        costs = [
            [residual(heads.detach(), one) for one in options]
            for heads, options in zip(places, choices, strict=True)
        ]
        kept = allocated(costs, wanted)
        maps = [options[n - 1] for options, n in zip(choices, kept, strict=True)]
    else:
        # Costs that fall less with every head: all get as many, and the first one more where it
        # does not divide.
        flat = [[1 / g for g in range(1, len(heads) + 1)] for heads in places]
        kept = allocated(flat, wanted)
        maps = []
        for heads, n in zip(places, kept, strict=True):
            if method == "cka":
                maps.append(grouped(cka(heads.detach()), n, seed))
            else:
                maps.append(tuple(i * n // len(heads) for i in range(len(heads))))
    return Groups(tuple(maps[0::2]), tuple(maps[1::2]))


def attentions_of(model: Decoder) -> list[SelfAttention]:
    """The attention of every block.

    Raises:
        ValueError: the model is no Transformer.
    """
    if not isinstance(model.config, TransformerConfig) or not all(
        isinstance(block.mixer, SelfAttention) for block in model.blocks
    ):
        kind = type(model.config).__name__.removesuffix("Config")
        raise ValueError(f"head fusion serves Transformers, not {kind}")
    return [block.mixer for block in model.blocks]  # type: ignore[misc]


def fusing(model: Decoder, groups: Groups) -> Decoder:
    """Puts a model into its fusion stage, in place; what it computes stays the same."""
    for block, keys, values in zip(model.blocks, groups.keys, groups.values, strict=True):
        fusing = FusingAttention(block.mixer, keys, values)  # type: ignore[arg-type]
        block.mixer = fusing.train(block.training)
    return model


def merged(model: Decoder) -> Decoder:
    """The model with one head per group in the place of its fused ones."""
    mixers = [block.mixer.merged() for block in model.blocks]  # type: ignore[operator]
    base = {f.name: getattr(model.config, f.name) for f in fields(TransformerConfig)}
    base |= {"kv_heads": None}
    config = DHAConfig(
        **base,
        k_maps=tuple(tuple(m.k_map) for m in mixers),
        v_maps=tuple(tuple(m.v_map) for m in mixers),
    )
    with torch.device("meta"):
        out = config.build()
    for block, mixer in zip(model.blocks, mixers, strict=True):
        block.mixer = mixer
    out.load_state_dict(model.state_dict(), assign=True)
    return out.train(model.training)


@dataclass(frozen=True)
class Progress:
    """How a fusion went: the language model's loss and the fusion loss, at every step."""

    language: list[float]
    fusion: list[float]


def fuse(
    model: Decoder,
    groups: Groups,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    lr: float = 1e-3,
    coefficient_lr: float | None = None,
    multiplier_lr: float = 0.1,
    steps: int = 200,
    told: Callable[[int, float, float], None] | None = None,
) -> tuple[Decoder, Progress]:
    """Fuses heads while training, then merges them: an augmented Lagrangian shrinks their distance.

    Args:
        model: a Transformer; it is changed.
        groups: which heads become one.
        batches: pairs of ids and the ids to predict, at least `steps` of them.
        lr: of all weights.
        coefficient_lr: of the coefficients, which have farther to go than a trained model's
            weights; as that of the weights by default.
        multiplier_lr: of the multipliers, which rise while the fusion loss is above its target.
        steps: over which the target falls from 1 to 0.
        told: called with the step and both losses.

    Source: Chen et al., 2024, arXiv 2406.06567, section 3.3; target and multipliers as we read it.
    """
    model = fusing(model, groups).train()
    parts: list[FusingAttention] = [block.mixer for block in model.blocks]  # type: ignore[misc]
    start = torch.stack([part.loss() for part in parts]).sum().detach().clamp(min=1e-12)
    mixing = [x for name, x in model.named_parameters() if name.endswith(".coefficients")]
    weights = [x for name, x in model.named_parameters() if not name.endswith(".coefficients")]
    rates = [{"params": weights}, {"params": mixing, "lr": coefficient_lr or lr}]
    optimizer = torch.optim.AdamW(rates, lr, weight_decay=0.0)
    first = second = 0.0
    language, fusion = [], []
    for step, (ids, targets) in zip(range(steps), batches, strict=False):
        target = 1 - (step + 1) / steps
        loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
        apart = torch.stack([part.loss() for part in parts]).sum() / start
        over = apart - target
        total = loss + first * over + second * over.square()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        first += multiplier_lr * over.item()
        second = max(second + multiplier_lr * over.item() ** 2, 0.0)
        language.append(loss.item())
        fusion.append(apart.item())
        if told is not None:
            told(step, loss.item(), apart.item())
    return merged(model.eval()), Progress(language, fusion)


def averaged(model: Decoder, groups: Groups) -> Decoder:
    """The means of each group's heads at once, without training; the model is changed."""
    return merged(fusing(model, groups))
