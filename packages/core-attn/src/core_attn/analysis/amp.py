"""AMP: smaller decoders by pruning attention heads and units of the MLPs.

Source: Mugnaini et al., 2025, "Efficient LLMs with AMP: Attention Heads and MLP Pruning",
arXiv 2504.21174. The paper treats models with as many key and value heads as query heads; grouped
heads are this project's addition.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .bench import without
from .prompts import checked
from .sites import Site, Sites, find_sites
from .units import UnitSite, find_units

Order = Literal["standard", "reversed", "random"]
Grouping = Literal["even", "kv", "free"]


@dataclass(frozen=True)
class Importance:
    """The importance of heads and units.

    Attributes:
        heads: per attention layer, one number for each head.
        units: per feed-forward layer, one number for each unit.
    """

    heads: Mapping[str, Float[Tensor, " _heads"]]
    units: Mapping[str, Float[Tensor, " _units"]]


@dataclass(frozen=True)
class Budget:
    """How much goes, the same in every layer.

    Attributes:
        heads: query heads removed per layer.
        units: units removed per layer.
        parameters: of the whole model.
        removed: parameters that go with them, keys and values of removed heads included.
        target: parameters that were to go.
    """

    heads: int
    units: int
    parameters: int
    removed: int
    target: int


@dataclass(frozen=True)
class Removal:
    """What goes: for each layer, the heads and the units, ascending."""

    heads: Mapping[str, tuple[int, ...]]
    units: Mapping[str, tuple[int, ...]]


class Decoder:
    """A decoder with its attention and feed-forward layers.

    Args:
        model: a Hugging Face decoder, or one of this project's, in evaluation mode.

    Raises:
        ValueError: layers are missing, or differ in their heads or units.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=12,
        ...                      num_hidden_layers=2, num_attention_heads=4)
        >>> decoder = Decoder(LlamaForCausalLM(config).eval())
        >>> decoder.heads, decoder.kv_heads, decoder.units
        (4, 4, 12)
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.sites: Sites = find_sites(model)
        self.unit_sites: dict[str, UnitSite] = find_units(model)
        if len(self.unit_sites) != len(self.sites):
            raise ValueError(
                f"{type(model).__name__} has {len(self.sites)} attention layers and "
                f"{len(self.unit_sites)} feed-forward layers known here; they must pair up"
            )
        self.heads = _the_one("heads", [site.num_heads for site in self.sites.values()])
        self.kv_heads = _the_one("key heads", [_kv_heads(site) for site in self.sites.values()])
        self.units = _the_one("units", [site.units for site in self.unit_sites.values()])

    def budget(self, ratio: float, *, exact: bool = False, group: Grouping = "even") -> Budget:
        """Heads and units to remove so that about `ratio` of all parameters go.

        Embeddings and norms stay; with r = ratio P / (A + M), where P, A and M are the parameters
        of the model, its attention and its feed-forward layers, round(r H) heads and
        round(r I + (r H - heads)) units go. The bracket counts a head as one unit, as the paper's
        code does; `exact` solves for the units from the parameter counts instead.

        Args:
            ratio: of all parameters, in (0, 1).
            exact: whether units make up for the rounding of heads.
            group: as in `choose`; heads are rounded to what it can remove.

        Raises:
            ValueError: the ratio is not in (0, 1), or would leave a layer without heads or units,
                or there is no such grouping.
        """
        _check_choice("group", group, Grouping)
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must be in (0, 1), got {ratio}")
        total = sum(p.numel() for p in self.model.parameters())
        inside = [s.layer for s in (*self.sites.values(), *self.unit_sites.values())]
        blocks = sum(p.numel() for layer in inside for p in layer.parameters())
        share = ratio * total / blocks
        unit = {"even": self.kv_heads, "kv": self.heads // self.kv_heads, "free": 1}[group]
        if self.kv_heads == self.heads:
            unit = 1
        heads = round(share * self.heads / unit) * unit
        if share >= 1:
            raise ValueError(
                f"pruning ratio {ratio} leaves 0 heads in layer 0; at least one is kept: attention "
                f"and feed-forward layers hold {blocks / total:.2f} of the parameters"
            )
        heads = min(heads, self.heads - unit)
        target = round(ratio * total)
        if exact:
            left = target - self.removed_parameters(heads, 0, group)
            units = round(left / (self.removed_parameters(0, 1, group)))
        else:
            units = round(self.units * share + (self.heads * share - heads))
        units = max(0, min(units, self.units - 1))
        removed = self.removed_parameters(heads, units, group)
        return Budget(heads, units, total, removed, target)

    def removed_parameters(self, heads: int, units: int, group: Grouping = "even") -> int:
        """Parameters that so many heads and units per layer take with them."""
        count = 0
        for site in self.sites.values():
            weight = site.output_weight
            dim = weight.shape[1] // self.heads
            biases = _has_bias(site)
            per_head = dim * (2 * weight.shape[0] + biases)
            count += heads * per_head
            if group == "kv" or self.kv_heads == self.heads:
                pairs = (
                    heads if self.kv_heads == self.heads else heads * self.kv_heads // self.heads
                )
                count += 2 * pairs * dim * (weight.shape[0] + biases)
        for site in self.unit_sites.values():
            *makers, reader = (getattr(site.layer, name) for name in (*site.ups, site.down))
            gone = [maker.weight for maker in makers] + [reader.weight]
            gone += [bias for maker in makers if (bias := getattr(maker, "bias", None)) is not None]
            count += units * sum(parameter.numel() // self.units for parameter in gone)
        return count

    @torch.no_grad()
    def importance(self, prompts: Sequence[Int[Tensor, "... _tokens"]]) -> Importance:
        """What heads and units contribute, in float32, each prompt weighing the same.

        A head's importance is the mean over tokens of the l1 norm of its output through its part
        of the output projection; a unit's the mean of its absolute value.

        Args:
            prompts: token ids, one sequence each, without padding.

        Raises:
            TypeError: a prompt is no tensor of integers.
            ValueError: no prompts, an empty one, one longer than the context, several sequences in
                one, or ids outside of the vocabulary.
        """
        prompts = checked(self.model, prompts)
        heads: dict[str, list[Tensor]] = {name: [] for name in self.sites}
        units: dict[str, list[Tensor]] = {name: [] for name in self.unit_sites}

        def contribution(site: Site, x: Tensor) -> None:
            slices = site.output_weight.float().unflatten(1, (self.heads, -1))
            parts = [
                (x[..., head, :].float() @ slices[:, head].T).abs().sum(-1).mean()
                for head in range(self.heads)  # one by one: all at once is H times the activations
            ]
            heads[site.name].append(torch.stack(parts))

        with ExitStack() as stack:
            for site in self.sites.values():
                stack.enter_context(site.on_heads(lambda x, site=site: contribution(site, x)))
            for site in self.unit_sites.values():
                keep = units[site.name].append
                stack.enter_context(
                    site.on_units(lambda x, keep=keep: keep(x.float().abs().flatten(0, -2).mean(0)))
                )
            for prompt in prompts:
                self.model(prompt)
        return Importance(
            {name: torch.stack(parts).mean(0) for name, parts in heads.items()},
            {name: torch.stack(parts).mean(0) for name, parts in units.items()},
        )

    def choose(
        self,
        importance: Importance,
        heads: int,
        units: int,
        *,
        order: Order = "standard",
        group: Grouping = "even",
        seed: int = 0,
    ) -> Removal:
        """The heads and units of each layer to remove.

        Args:
            importance: of all of them.
            heads: how many query heads per layer.
            units: how many units per layer.
            order: "standard" removes the least important; "reversed" the most important and
                "random" any, as controls.
            group: with grouped heads, "even" takes as many query heads from each key and value
                head; "kv" whole groups, by the sum of their importance; "free" any, which can be
                masked but not cut out.
            seed: of the random order.

        Raises:
            ValueError: a layer would be left without heads or units, the heads cannot be taken
                from the groups as asked, or there is no such order or grouping.
        """
        _check_choice("order", order, Order)
        _check_choice("group", group, Grouping)
        if not 0 <= heads < self.heads or not 0 <= units < self.units:
            raise ValueError(
                f"heads must be 0 to {self.heads - 1} and units 0 to {self.units - 1}, at least "
                f"one of each is kept; got {heads} and {units}"
            )
        size = self.heads // self.kv_heads
        if size > 1 and group == "even" and heads % self.kv_heads:
            raise ValueError(
                f"cannot remove {heads} of {self.heads} query heads from {self.kv_heads} key/value "
                f"groups evenly; choose a multiple of {self.kv_heads}, or group='kv'"
            )
        if size > 1 and group == "kv" and heads % size:
            raise ValueError(
                f"cannot remove {heads} query heads in groups of {size}; choose a multiple of it"
            )
        generator = torch.Generator().manual_seed(seed)

        def least(scores: Tensor, count: int) -> list[int]:
            if order == "random":
                return torch.randperm(len(scores), generator=generator)[:count].tolist()
            ranked = scores.argsort(stable=True, descending=order == "reversed")
            return ranked[:count].tolist()

        def of_layer(scores: Tensor) -> tuple[int, ...]:
            grouped = scores.unflatten(0, (self.kv_heads, size))
            if size == 1 or group == "free":
                chosen = least(scores, heads)
            elif group == "kv":
                pairs = least(grouped.sum(1), heads // size)
                chosen = [pair * size + i for pair in pairs for i in range(size)]
            else:
                each = heads // self.kv_heads
                chosen = [
                    pair * size + i for pair, row in enumerate(grouped) for i in least(row, each)
                ]
            return tuple(sorted(chosen))

        return Removal(
            {name: of_layer(scores) for name, scores in importance.heads.items()},
            {
                name: tuple(sorted(least(scores, units)))
                for name, scores in importance.units.items()
            },
        )

    @contextmanager
    def masked(self, removal: Removal) -> Iterator[None]:
        """While open, what is to be removed gives 0; the output is that of the pruned model."""
        with ExitStack() as stack:
            for name, heads in removal.heads.items():
                stack.enter_context(self.sites[name].on_heads(without(heads)))
            for name, units in removal.units.items():
                gone = torch.tensor(units, dtype=torch.long)
                stack.enter_context(
                    self.unit_sites[name].on_units(lambda x, gone=gone: x.index_fill(-1, gone, 0))
                )
            yield


def _check_choice(what: str, given: str, choices: object) -> None:
    if given not in (known := get_args(choices)):
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {given!r}")


def _the_one(what: str, counts: Sequence[int]) -> int:
    if len(set(counts)) != 1:
        raise ValueError(f"layers have {sorted(set(counts))} {what}; all must have the same number")
    return counts[0]


def _kv_heads(site: Site) -> int:
    stored = getattr(site.layer, "kv_heads", None)
    if isinstance(stored, int):
        return stored
    if (maps := _head_maps(site)) is not None:
        keys, values = maps
        count = max(keys) + 1
        even = [head * count // len(keys) for head in range(len(keys))]
        if list(keys) != even or list(values) != even:
            raise ValueError(f"{site.name}: keys and values are shared unevenly: {keys}, {values}")
        return count
    keys = getattr(site.layer, "k_proj", None)
    if isinstance(keys, nn.Linear):
        return keys.out_features * site.num_heads // site.output_weight.shape[1]
    return site.num_heads


def _head_maps(site: Site) -> tuple[Sequence[int], Sequence[int]] | None:
    keys, values = (getattr(site.layer, name, None) for name in ("k_map", "v_map"))
    return None if keys is None or values is None else (keys, values)


def _has_bias(site: Site) -> int:
    names = ("q_proj", "qkv", "c_attn")
    layers = [getattr(site.layer, name, None) for name in names]
    return int(any(getattr(layer, "bias", None) is not None for layer in layers))
