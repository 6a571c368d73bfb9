"""E2: how many heads it takes, and on how many seeds two heads find both signs."""

from dataclasses import dataclass

import numpy as np

from ... import plotting
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most, close, near
from ...references import known
from ...seeds import torch_generator
from .. import theory
from ..analysis import analyse
from ..data import LinearRegression
from ..model import ICLConfig
from ..references import REFERENCES, bayes_risk, single_head_risk
from ..training import Recipe, test_risk, train


@dataclass(frozen=True, kw_only=True)
class Heads(Config):
    """Training on length 40, testing on every length without retraining."""

    seeds: int = 8
    d: int = 5
    noise: float = 0.1
    heads: tuple[int, ...] = (1, 2, 4, 8)
    length: int = 40
    lengths: tuple[int, ...] = (10, 20, 30, 40, 60, 80, 100)
    steps: int = 2000
    batch: int = 256
    lr: float = 5e-3
    prompts: int = 20_000


def measure(config: Heads, heads: int) -> Arrays:
    """Trains all seeds with one number of heads and tests them on every length."""
    trained = train(
        ICLConfig(config.d, heads=heads),
        LinearRegression(config.d, config.length, config.noise),
        Recipe(config.steps, config.batch, config.lr),
        seeds=config.seeds,
        device=config.device,
        purpose="heads",
        stream=config.stream,
    )
    risks, errors = [], []
    for length in config.lengths:
        generator = torch_generator(config.stream, f"heads test {length}", config.device)
        task = LinearRegression(config.d, length, config.noise)
        risk, error = test_risk(trained.layers, task, config.prompts, generator)
        risks.append(risk)
        errors.append(error)
    two_sided = [analyse(trained.layers.layer(s)).two_sided for s in range(config.seeds)]
    return {
        "heads": heads,
        "risk": np.array(risks),
        "error": np.array(errors),
        "two_sided": np.array(two_sided),
        "steps": np.array(trained.steps),
        "loss": np.array(trained.loss),
        "one_head": single_head_risk(config.d, config.length, config.noise).value,
        "dgd": theory.dgd_risk(
            theory.dgd_step(config.d, config.length, config.noise),
            config.d,
            np.array(config.lengths),
            config.noise,
        ),
        "bayes": np.array(
            [bayes_risk(config.d, length, config.noise).value for length in config.lengths]
        ),
    }


def checks(result: Result) -> list[Check]:
    """Final risks of the seeds that found both signs, and of one head."""
    out, config = [], result.config
    references = known(REFERENCES, "heads", config)
    at = config.lengths.index(config.length)
    best = (
        1
        + config.noise
        - (config.length - 1) / (config.length + config.d + config.noise * config.d)
    )
    for part in result.parts:
        heads, found = int(part["heads"]), part["two_sided"]
        good = found if heads > 1 else np.ones_like(found)
        noise = 4 * float(part["error"][at].mean())
        risk = part["risk"][:, good].mean(1)
        if heads == 1:
            alone = single_head_risk(config.d, config.length, config.noise)
            out.append(near(f"risk, H=1, L={config.length}", risk[at], alone, noise / 4, 0.006))
        else:
            share = float(1 - found.mean())
            out.append(at_most(f"seeds left with one sign, H={heads}", share,
                               0.75 if heads == 2 else 0.5, "measured"))  # fmt: skip
            out.append(close(f"risk, two-sided seeds, H={heads}, L={config.length}", risk[at], best,
                             0.004 + noise, "derived"))  # fmt: skip
        for length in (40, 100):
            if heads in references[length] and length in config.lengths:
                i = config.lengths.index(length)
                # Theirs is one seed, of which the spread is not known.
                out.append(near(f"risk, H={heads}, L={length} v authors", risk[i],
                                references[length][heads], part["error"][i].mean(),
                                bias=0.006))  # fmt: skip
    return out


def draw(result: Result):
    """Risk against test length, and loss against steps."""
    figure, [[left, right]] = plotting.panels(1, 2)
    config = result.config
    references = known(REFERENCES, "heads", config)
    for i, part in enumerate(result.parts):
        heads, found = int(part["heads"]), part["two_sided"]
        share = f"{found.sum()}/{len(found)} two-sided" if heads > 1 else "one-sided"
        good = found if heads > 1 else np.ones_like(found)
        risk = part["risk"][:, good]
        label = f"H={heads} ({share})"
        plotting.means(left, config.lengths, risk, index=i, label=label)
        stars = {length: rows[heads] for length, rows in references.items() if heads in rows}
        plotting.stars(left, stars, index=i)
        right.plot(part["steps"], part["loss"], color=plotting.COLOURS[i], lw=0.6, alpha=0.6)
    lengths, part = np.array(config.lengths), result.parts[0]
    plotting.line(left, lengths, part["dgd"], index=6, label=f"DGD, step of L={config.length}")
    plotting.line(left, lengths, part["bayes"], index=6, label="Bayes", style=":")
    plotting.labels(left, "test length L", "risk (stars: authors)" if references else "risk")
    eta = theory.dgd_step(config.d, config.length, config.noise)
    levels = {
        "one head": part["one_head"],
        "DGD": theory.dgd_risk(eta, config.d, config.length, config.noise),
        "Bayes": bayes_risk(config.d, config.length, config.noise).value,
    }
    for i, (name, level) in enumerate(levels.items()):
        right.axhline(level, color="black", ls=("-", "--", ":")[i], lw=1, label=name)
    right.set_ylim(0.7 * levels["Bayes"], 1.2 * (1 + config.noise))
    right.set_yscale("log")
    plotting.labels(right, "step", "training loss, every seed")
    return figure


EXPERIMENT = Experiment(
    "icl_linear.heads",
    "E2: risk of trained models of 1, 2, 4 and 8 heads; all seeds, with the number of them that "
    "found heads of both signs.",
    Heads(),
    None,
    measure,
    checks,
    draw,
    points=lambda config: config.heads,
    revision=3,
    budget=70,
)
