"""P8: trained layers recall pairs in the order the laws predict."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from core_attn import delta_rule, linear_attention

from ... import plotting
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least
from ...seeds import torch_generator


@dataclass(frozen=True, kw_only=True)
class TrainedRecall(Config):
    """n pairs out of a vocabulary, then queries for all of them in another order."""

    seeds: int = 3
    widths: tuple[int, ...] = (4, 8, 16, 32)
    pairs: int = 16
    vocabulary: int = 64
    values: int = 16
    batch: int = 32
    steps: int = 400
    lr: float = 0.02


def measure(config: TrainedRecall, point: tuple[str, int]) -> Arrays:
    """Trains all seeds of one rule at one width; accuracy of recall on fresh sequences."""
    rule, width = point
    generator = torch_generator(0, f"trained {rule} {width}", config.device)
    seeds = config.seeds

    def normal(*shape: int) -> torch.Tensor:
        draw = torch.randn(seeds, *shape, generator=generator, device=config.device)
        return draw.requires_grad_()

    keys, values = normal(config.vocabulary, width), normal(config.values, config.values)
    readout = normal(config.values, config.values)
    strength = torch.zeros(seeds, 1, 1, device=config.device, requires_grad=True)
    optimiser = torch.optim.Adam([keys, values, readout, strength], lr=config.lr)

    def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
        shape = (seeds, config.batch)
        noise = torch.rand(*shape, config.vocabulary, generator=generator, device=config.device)
        symbols = noise.argsort(-1)[..., : config.pairs]
        labels = torch.randint(
            0, config.values, (*shape, config.pairs), generator=generator, device=config.device
        )
        which = torch.arange(seeds, device=config.device)[:, None, None]
        k = F.normalize(keys[which, symbols], dim=-1)
        v = values[which, labels]
        # The pairs, then their keys alone: nothing is written while they are asked for.
        asked = torch.cat((k, k), 2)
        written = torch.cat((v, torch.zeros_like(v)), 2)
        gate = torch.cat((torch.ones_like(k[..., 0]), torch.zeros_like(k[..., 0])), 2)
        beta = gate * (2 * strength.sigmoid())
        rule_of = delta_rule if rule == "delta" else linear_attention
        out, _ = rule_of(asked, asked, written, beta=beta, scale=1.0)
        return out[:, :, config.pairs :] @ readout.unsqueeze(1), labels

    for step in range(config.steps):
        optimiser.param_groups[0]["lr"] = (
            config.lr * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        )
        logits, labels = logits_and_labels()
        loss = F.cross_entropy(logits.flatten(0, 2), labels.flatten()) * seeds
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        rounds = [logits_and_labels() for _ in range(16)]
    right = [(logits.argmax(-1) == labels).float().mean((1, 2)) for logits, labels in rounds]
    return {
        "delta": rule == "delta",
        "width": width,
        "accuracy": torch.stack(right).mean(0).cpu().numpy(),
    }


def checks(result: Result) -> list[Check]:
    """Wider is better, and the delta rule is never behind."""
    out = []
    is_delta, width = result["delta"], result["width"]
    accuracy = result["accuracy"].mean(1)
    linear, delta = accuracy[~is_delta], accuracy[is_delta]
    for w, a, b in zip(width[is_delta], linear, delta, strict=True):
        out.append(at_least(f"delta - linear, d_k={w}", b - a, -0.01, "chosen"))
    out.append(at_least("delta - linear, all widths", (delta - linear).sum(), 0.02, "chosen"))
    for name, curve in (("linear", linear), ("delta", delta)):
        out.append(at_least(f"{name}: least gain from doubling d_k", np.diff(curve).min(), -0.01,
                            "chosen"))  # fmt: skip
    return out


def draw(result: Result):
    """Accuracy against width."""
    figure, [[ax]] = plotting.panels(width=4.8)
    for i, (name, flag) in enumerate((("linear attention", False), ("delta rule", True))):
        chosen = result["delta"] == flag
        accuracy = result["accuracy"][chosen]
        plotting.points(ax, result["width"][chosen], accuracy.mean(1), accuracy.std(1), index=i,
                        label=name)  # fmt: skip
        plotting.line(ax, result["width"][chosen], accuracy.mean(1), index=i, style=":")
    ax.axhline(1 / result.config.values, color="black", lw=0.7, ls="--", label="chance")
    ax.set_xscale("log", base=2)
    plotting.labels(ax, "key dimension d_k", f"recall of {result.config.pairs} pairs")
    return figure


EXPERIMENT = Experiment(
    "pavlov_memory.trained",
    "P8: trained on associative recall, a delta-rule layer is ahead of a linear-attention layer "
    "at every width, and both gain with width.",
    TrainedRecall(),
    None,
    measure,
    checks,
    draw,
    points=lambda config: [(rule, w) for rule in ("linear", "delta") for w in config.widths],
    budget=60,
)
