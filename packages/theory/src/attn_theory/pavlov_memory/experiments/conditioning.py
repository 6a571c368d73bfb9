"""P6: classical conditioning: what the delta rule shows and the Hebbian rule does not."""

from dataclasses import dataclass

import numpy as np
import torch

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Experiment, Result, Settings, at_least, at_most, close
from ...tables import Tidy
from .. import theory
from ..rules import delta, hebbian

A, B, AB = (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Conditioning(Settings):
    """Trials per phase and learning rate; stimuli A and B are indicator keys."""

    rate: float = 0.2
    trials: int = 100


def protocols(trials: int) -> dict[str, list[tuple[tuple[float, float], float]]]:
    """Trials, each a stimulus and its reward, of the four experiments.

    Example:
        >>> sorted(protocols(2))
        ['acquisition', 'blocking', 'inhibition', 'overshadowing']
    """
    return {
        "acquisition": [(A, 1.0)] * trials + [(A, 0.0)] * trials,
        "blocking": [(A, 1.0)] * trials + [(AB, 1.0)] * trials,
        "overshadowing": [(AB, 1.0)] * trials,
        "inhibition": [(A, 1.0), (AB, 0.0)] * (4 * trials),
    }


def strengths(
    trials: list[tuple[tuple[float, float], float]], rule: str, rate: float
) -> np.ndarray:
    """What A and B alone predict after each trial, (trials, 2).

    Example:
        >>> strengths([((1.0, 0.0), 1.0)], "delta", 0.5).tolist()
        [[0.5, 0.0]]
    """
    k = torch.tensor([stimulus for stimulus, _ in trials], dtype=torch.float64)[None, None]
    v = torch.tensor([[reward] for _, reward in trials], dtype=torch.float64)[None, None]
    curves = []
    for probe in (A, B):
        q = torch.tensor(probe, dtype=torch.float64).expand_as(k)
        if rule == "delta":
            out, _ = delta(q, k, v, rate, scale=1.0)
        else:
            out, _ = hebbian(q, rate * k, v, scale=1.0)
        curves.append(out.flatten().numpy())
    return np.stack(curves, -1)


def measure(config: Conditioning, point: tuple[str, str]) -> Arrays:
    """Strengths of A and B over all trials, with one rule under one protocol."""
    rule, protocol = point
    trials = protocols(config.trials)[protocol]
    return {"rule": rule, "protocol": protocol, "strength": strengths(trials, rule, config.rate)}


def curves(result: Result) -> dict[tuple[str, str], np.ndarray]:
    """Strengths (trials, stimuli) by rule and protocol."""
    return {(str(p["rule"]), str(p["protocol"])): p["strength"] for p in result.parts}


def checks(result: Result) -> list[Check]:
    """Closed forms of the delta rule, and the contrast."""
    part, config = curves(result), result.config
    n, rate = config.trials, config.rate
    curve = part["delta", "acquisition"][:, 0]
    t = np.arange(1, n + 1)
    gain = np.abs(curve[:n] - theory.acquisition(t, rate)).max()
    loss = np.abs(curve[n:] - curve[n - 1] * (1 - rate) ** t).max()
    blocked = part["delta", "blocking"][-1, 1]
    hebbian = part["hebbian", "blocking"][-1, 1]
    return [
        at_most("acquisition v 1 - (1 - rate)^t", gain, 1e-14),
        at_most("extinction v V_0 (1 - rate)^t", loss, 1e-14),
        at_most("blocking: |V_B|", abs(blocked), 3.5e-9),
        at_least("no blocking in a Hebbian memory: V_B", hebbian, 1.0),
        close("overshadowing: V_A", part["delta", "overshadowing"][-1, 0], 0.5, 1e-12),
        close("overshadowing: V_B", part["delta", "overshadowing"][-1, 1], 0.5, 1e-12),
        close("inhibition: V_A", part["delta", "inhibition"][-1, 0], 1.0, 1e-6),
        close("inhibition: V_B", part["delta", "inhibition"][-1, 1], -1.0, 1e-6),
    ]


def draw(result: Result):
    """Strengths over trials: delta above, Hebbian below."""
    figure, axes = plotting.panels(2, 4, width=3, height=2.4)
    part, config = curves(result), result.config
    for row, rule in zip(axes, ("delta", "hebbian"), strict=True):
        for ax, name in zip(row, protocols(1), strict=True):
            curve = part[rule, name]
            t = np.arange(1, len(curve) + 1)
            for i, stimulus in enumerate("AB"):
                plotting.line(ax, t, curve[:, i], index=i, label=f"$V_{stimulus}$")
            if rule == "delta" and name == "acquisition":
                law = theory.acquisition(t[: config.trials], config.rate)
                plotting.points(ax, t[: config.trials : 8], law[::8], index=2, label="law")
            ax.axhline(0, color="black", lw=0.5)
            plotting.labels(
                ax, "trial $t$", "strength $V$", f"{name}, {rule if rule == 'delta' else 'Hebbian'}"
            )
    return figure


EXPERIMENT = Experiment(
    entry("pavlov_memory.conditioning"),
    Conditioning(),
    Conditioning(),
    measure,
    checks,
    draw,
    Tidy({"rule": "", "protocol": "", "strength": "trial stimulus"}, {"stimulus": ("A", "B")}),
    work=lambda c: c.trials,
    points=lambda config: [(rule, name) for name in protocols(1) for rule in ("delta", "hebbian")],
    revision=2,
)
