"""BAM and BTX: one mixture out of several dense models of the same shape."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .models import Decoder
from .models.bam import BAMConfig
from .models.transformer import TransformerConfig


class Upcycled(NamedTuple):
    """A mixture, and what was done with each weight, in words."""

    model: Decoder
    report: list[str]


def upcycle(
    experts: Sequence[Decoder],
    kv: Literal["expert", "shared", "single"] = "expert",
    *,
    top_k: int = 1,
    balance: float = 1e-2,
    router_z: float = 1e-3,
    seed: int = 0,
) -> Upcycled:
    """A mixture of dense models: what experts have of their own is copied, the rest averaged.

    Args:
        experts: dense models with parallel blocks, gated feed-forwards and no biases.
        kv: "expert": all attentions copied; "shared": queries and outputs copied, keys and values
            averaged; "single": one attention, averaged, which is BTX.
        top_k: feed-forward experts of a token.
        balance: weight of the load balancing loss.
        router_z: weight of the router's z loss.
        seed: of the routers, normal with deviation 0.02.

    Raises:
        ValueError: there are fewer than two, or they differ in shape or kind.

    Source: Zhang et al., 2024, arXiv 2408.08274, section 3.2; Sukhbaatar et al., 2024,
        arXiv 2403.07816, section 3.2.
    """
    if len(experts) < 2:
        raise ValueError(f"a mixture needs 2 models or more, got {len(experts)}")
    first = experts[0].config
    for number, expert in enumerate(experts):
        _check(number, expert.config, first)
    shape = {f.name: getattr(first, f.name) for f in fields(TransformerConfig)}
    config = BAMConfig(
        **shape, experts=len(experts), kv=kv, top_k=top_k, balance=balance, router_z=router_z
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = config.build()
    states = [expert.state_dict() for expert in experts]
    state, report = dict(model.state_dict()), []
    for name in state:
        if ".router." in name:
            torch.nn.init.normal_(
                state[name], std=0.02, generator=torch.Generator().manual_seed(seed + len(report))
            )
            report.append(f"{name}: random")
        elif name.endswith("mixer.qkv.weight") and kv != "single":
            parts = [_split(s[name], config) for s in states]
            q = torch.cat([part[0] for part in parts])
            rest = [[part[i] for part in parts] for i in (1, 2)]
            joined = [_mean(x) if kv == "shared" else torch.cat(x) for x in rest]
            state[name] = torch.cat((q, *joined))
            how = "keys and values averaged" if kv == "shared" else "all copied"
            report.append(f"{name}: queries copied, {how}")
        elif name.endswith("mixer.out.weight") and kv != "single":
            state[name] = torch.cat([s[name] for s in states], 1)
            report.append(f"{name}: copied")
        elif name.endswith(("feed_forward.gate_up", "feed_forward.down")):
            state[name] = torch.stack([s[f"{name}.weight"] for s in states])
            report.append(f"{name}: copied")
        else:
            state[name] = _mean([s[name] for s in states])
            report.append(f"{name}: averaged")
    model.load_state_dict(state)
    return Upcycled(model.eval(), report)


def _check(number: int, config: object, first: object) -> None:
    who = f"expert {number}"
    if type(config) is not TransformerConfig:
        raise ValueError(f"{who} is a {type(config).__name__}; dense Transformers are mixed")
    if config.block != "parallel" or not config.gated:
        raise ValueError(f"{who} has {config.block} blocks; parallel ones with a gate are mixed")
    if config.bias or config.qkv_bias or config.out_bias:
        raise ValueError(f"{who} has biases; a mixture has none")
    for field in fields(TransformerConfig):
        ours, theirs = getattr(config, field.name), getattr(first, field.name)
        if ours != theirs and field.name != "dropout":
            raise ValueError(f"{who} has {field.name} {ours}, expert 0 has {theirs}")


def _split(qkv: Tensor, config: BAMConfig) -> tuple[Tensor, ...]:
    head_dim, stored = config.features_per_head, config.kv_heads or config.heads
    return qkv.split([config.heads * head_dim, stored * head_dim, stored * head_dim])


def _mean(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors).mean(0)
