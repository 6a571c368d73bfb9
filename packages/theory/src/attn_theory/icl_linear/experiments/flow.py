"""E4: gradient flow on the approximate loss: rise, split of signs, slow drift."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most, close, near
from ...references import known
from ...seeds import numpy_generator
from ...tables import Tidy
from .. import theory
from ..references import REFERENCES


@dataclass(frozen=True, kw_only=True)
class Flow(Config):
    """Euler steps from 0.1 N(0, 1), one run per seed."""

    seeds: int = 32
    heads: int = 2
    d: int = 5
    length: int = 40
    noise: float = 0.1
    start: float = 0.1
    step: float = 0.01
    steps: int = 200_000
    times: tuple[int, ...] = (0, 300, 1000, 2000, 5000, 20_000, 100_000, 200_000)


def measure(config: Flow, point: None) -> Arrays:
    """All runs."""
    mu = np.empty((config.seeds, config.heads))
    omega = np.empty_like(mu)
    for i, seed in enumerate(config.streams):
        rng = numpy_generator(seed, "flow")
        mu[i], omega[i] = config.start * rng.normal(size=(2, config.heads))
    times = np.r_[config.times, np.geomspace(1, config.steps, 200).astype(int)]
    record = np.unique(times[times <= config.steps])
    mu, omega = theory.flow(
        mu, omega, config.d, config.length, config.noise,
        step=config.step, steps=config.steps, record=record,
    )  # fmt: skip
    problem = (config.d, config.length, config.noise)
    loss = [
        [theory.approximate_loss(m, o, *problem) for m, o in zip(ms, os, strict=True)]
        for ms, os in zip(mu, omega, strict=True)
    ]
    two_sided = (omega[-1].max(-1) > 0.01) & (omega[-1].min(-1) < -0.01)
    return {"t": record, "mu": mu, "omega": omega, "loss": np.array(loss), "two_sided": two_sided}


def checks(result: Result) -> list[Check]:
    """The drift t^(-1/6) on runs of both signs; the others stay with one head."""
    part, config = result.parts[0], result.config
    t, found = part["t"], part["two_sided"]
    gamma = np.abs(part["omega"][:, found]).mean(2)
    # A run that splits late also drifts late: the median is the typical one.
    middle = np.median(gamma, 1)
    out = []
    for time, reference in known(REFERENCES, "flow", config)["gamma"].items():
        if time <= config.steps:
            value = float(middle[np.searchsorted(t, time)])
            out.append(near(f"gamma at step {time}", value, reference))
    drift = theory.drift(config.step * t[-1], config.d, config.length, config.noise)
    out.append(close("gamma at the end / the law of the drift", middle[-1] / drift, 1.0, 0.05))
    late = (t >= config.steps // 10) & (t > 0)
    slope = np.polyfit(np.log(t[late]), np.log(middle[late]), 1)[0]
    out.append(close("exponent of the drift", slope, -1 / 6, 0.015))
    product = (part["mu"][-1, found] * part["omega"][-1, found]).sum(-1).mean()
    eta = 1 / (1 + (1 + config.noise) * config.d / config.length)
    out.append(close("step 2 m gamma", product, eta, 0.02))
    total = np.abs(part["mu"][-1, found].sum(-1)).max() / np.abs(part["mu"][-1, found]).max()
    out.append(at_most("|sum mu| / max |mu| at the end", total, 0.02))
    _, _, alone = theory.single_head(config.d, config.length, config.noise)
    if (~found).any():
        out.append(close("loss of runs left with one sign", part["loss"][-1, ~found].mean(), alone,
                         1e-3))  # fmt: skip
    out.append(close("share of runs left with one sign", (~found).mean(), 2.0 ** (1 - config.heads),
                     4 * 0.5 / config.seeds**0.5))  # fmt: skip
    return out


def draw(result: Result):
    """omega, mu and loss against time."""
    figure, [axes] = plotting.panels(1, 3, width=3.6)
    part, config = result.parts[0], result.config
    t = np.maximum(part["t"], 1)
    found = part["two_sided"]
    axes[0].plot(t, np.abs(part["omega"][:, found]).mean(2), color=plotting.COLORS[0], lw=0.5)
    law = theory.drift(config.step * t, config.d, config.length, config.noise)
    axes[0].plot(t[law < 0.5], law[law < 0.5], "k--", label="drift, derived")
    plotting.stars(axes[0], known(REFERENCES, "flow", config)["gamma"], label="earlier run")
    axes[0].set_yscale("log")
    seed = int(np.argmax(found))
    for h in range(config.heads):
        plotting.line(
            axes[1], t, part["mu"][:, seed, h], index=0, label=r"$\mu$" if h == 0 else None
        )
        plotting.line(axes[1], t, part["omega"][:, seed, h], index=1,
                      label=r"$\omega$" if h == 0 else None)  # fmt: skip
    axes[2].plot(t, part["loss"][:, found], color=plotting.COLORS[0], lw=0.5)
    axes[2].plot(t, part["loss"][:, ~found], color=plotting.COLORS[1], lw=0.5)
    _, _, alone = theory.single_head(config.d, config.length, config.noise)
    pair = theory.pair_loss(theory.pair_value(1e-3, config.d, config.length, config.noise), 1e-3,
                            config.d, config.length, config.noise)  # fmt: skip
    axes[2].axhline(alone, color="black", ls=":", lw=1, label="one head")
    axes[2].axhline(pair, color="black", ls="--", lw=1, label="two heads, limit")
    for ax in axes:
        ax.set_xscale("log")
    plotting.labels(axes[0], "Euler step", r"$\gamma$ = mean $|\omega|$")
    plotting.labels(axes[1], "Euler step", f"run {seed}")
    plotting.labels(axes[2], "Euler step", f"loss; {found.sum()}/{len(found)} runs two-sided")
    return figure


EXPERIMENT = Experiment(
    entry("icl_linear.flow"),
    Flow(),
    Flow(steps=100_000, seeds=8),
    measure,
    checks,
    draw,
    Tidy(
        {"omega": "t seed head", "mu": "t seed head", "loss": "t seed", "two_sided": "seed"},
        {"t": "t"},
    ),
    work=lambda c: c.steps * c.seeds * c.heads**2,
)
