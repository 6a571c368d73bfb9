"""Test error against sample size, in a fast and a large setting."""

from dataclasses import dataclass

import numpy as np
import torch

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least, at_most
from ...references import known
from ...tables import Tidy
from ..data import paper_targets
from ..learning import test_errors
from ..references import REFERENCES

MODELS = ("RFA", "BRFA", "MLP")


@dataclass(frozen=True, kw_only=True)
class Curves(Config):
    """Queries and keys in R^d with d keys; label noise is relative to a unit-variance target.

    Attributes:
        kernel_up_to: largest sample size at which the infinite kernel is fitted too; 0 for none.
    """

    seeds: int = 5
    d: int = 8
    heads: int = 400
    sizes: tuple[int, ...] = (256, 1024, 4096)
    noise: float = 0.1
    kernel_up_to: int = 1024
    device: str = "cpu"


def points(config: Curves) -> list[tuple[int, str]]:
    """A seed and a model."""
    models = (*MODELS, "kernel") if config.kernel_up_to else MODELS
    return [(seed, name) for seed in config.streams for name in models]


def measure(config: Curves, point: tuple[int, str]) -> Arrays:
    """Test errors of every size and target."""
    seed, name = point
    sizes = config.sizes
    if name == "kernel":
        sizes = tuple(n for n in sizes if n <= config.kernel_up_to)
    errors = test_errors(
        name, seed, d=config.d, keys=config.d, heads=config.heads, sizes=sizes,
        noise=config.noise, rotated=True, device=config.device,
    )  # fmt: skip
    return {"model": name, "seed": seed, "sizes": np.array(sizes), "error": errors}


def by_model(result: Result) -> dict[str, np.ndarray]:
    """Test errors (seeds, sizes, targets) of each model."""
    grouped: dict[str, list[np.ndarray]] = {}
    for part in result.parts:
        grouped.setdefault(str(part["model"]), []).append(part["error"])
    return {name: np.stack(errors) for name, errors in grouped.items()}


def target_names() -> list[str]:
    """Names of the targets in their order."""
    return list(paper_targets(2, torch.Generator(), rotated=True))


def checks(result: Result) -> list[Check]:
    """The claims on means over seeds, with bands that do not overlap."""
    config, errors, names = result.config, by_model(result), target_names()
    out = []
    last = len(config.sizes) - 1

    def values(model: str, target: str, size: int = last) -> np.ndarray:
        return errors[model][:, size, names.index(target)]

    several = config.seeds > 1
    if config.d == 16:
        for model in ("RFA", "BRFA"):
            value = values(model, "f1 p2").mean()
            few = config.sizes[-1] < 2048 or config.heads < 1000
            out.append(at_most(f"{model}, f1 p2, n={config.sizes[-1]}", value,
                               0.5 if few else 0.15, "abstract"))  # fmt: skip
        value = values("MLP", "f1 p2").mean()
        out.append(at_least(f"MLP, f1 p2, n={config.sizes[-1]}", value, 0.9, "abstract"))
        if several:
            gap = values("MLP", "f1 p2").min() - values("RFA", "f1 p2").max()
            out.append(at_least("f1 p2: gap of the bands, MLP over RFA", gap, 0.0, "abstract"))
        for model in MODELS:
            value = values(model, "f2 q4").mean()
            out.append(at_least(f"{model}, f2 q4 (nobody learns it here)", value, 0.85, "measured"))
    if config.d == 8 and config.sizes[-1] == 4096:
        for target, share in (("f2 q2", 0.75), ("f2 q4", 0.85)):
            ratio = values("BRFA", target).mean() / values("RFA", target).mean()
            out.append(at_most(f"BRFA / RFA, {target}, n=4096", ratio, share, "abstract"))
            if several:
                gap = values("RFA", target).min() - values("BRFA", target).max()
                out.append(at_least(f"{target}: gap of the bands, RFA over BRFA", gap, 0.0,
                                    "abstract"))  # fmt: skip
        for target in ("turned q2", "turned q4"):
            ratio = values("BRFA", target).mean() / values("RFA", target).mean()
            out.append(at_least(f"BRFA / RFA, {target} (control)", ratio, 0.95, "chosen"))
    for target in ("f1 p2", "f1 p3", "f1 p4"):
        ratio = values("RFA", target).mean() / values("BRFA", target).mean()
        out.append(at_most(f"RFA / BRFA, {target}", ratio, 1.05, "derived"))
    references = known(REFERENCES, "curves", config)
    for model, n in dict.fromkeys(row for rows in references.values() for row in rows):
        if n in config.sizes:
            ours = errors[model][:, config.sizes.index(n)]
            gaps = []
            for target, rows in references.items():
                one = ours[:, names.index(str(target))]
                reference = rows[model, n]
                gaps.append(abs(one.mean() - reference.value) / (reference.error + 2 * one.std()))
            out.append(at_most(f"{model}, n={n}: largest |mean - earlier seed| / allowed",
                               max(gaps), 1.0, "measured"))  # fmt: skip
    return out


def draw(result: Result):
    """A panel per target."""
    names, errors, config = target_names(), by_model(result), result.config
    references = known(REFERENCES, "curves", config)
    figure, axes = plotting.panels(3, 3, width=3.2, height=2.6)
    for j, (ax, name) in enumerate(zip(axes.flat, names, strict=True)):
        for i, (model, values) in enumerate(errors.items()):
            x = np.array(config.sizes[: values.shape[1]])
            mean = values[..., j].mean(0)
            if model == "kernel":
                label = "RFA, infinite heads"
                plotting.line(ax, x[: len(mean)], mean, index=0, style="--", label=label)
                continue
            plotting.means(ax, x, values[..., j].T, index=i, label=model)
            plotting.line(ax, x, mean, index=i, style="-")
            stars = {n: value for (of, n), value in references[name].items() if of == model}
            plotting.stars(ax, stars, index=i)
        ax.axhline(1, color="black", lw=0.6, ls=":")
        ax.set(xscale="log", yscale="log")
        plotting.ticks(ax, config.sizes)
        plotting.labels(ax, "samples $n$", "test error", name, legend=False)
    handles, models = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, models, loc="outside upper center", ncols=len(models))
    return figure


TIDY = Tidy(
    {"model": "", "seed": "", "error": "size target"},
    {"size": "sizes", "target": target_names()},
    {"error": "test_error"},
)


def _work(config: Curves) -> float:
    return config.seeds * config.heads * config.d**2 * (max(config.sizes) + 1500)


FAST = Experiment(
    entry("random_feature_attention.fast"),
    Curves(),
    Curves(seeds=1, sizes=(256, 512), heads=100, kernel_up_to=256),
    measure,
    checks,
    draw,
    TIDY,
    work=_work,
    points=points,
    revision=3,
)
LARGE = Experiment(
    entry("random_feature_attention.large"),
    Curves(d=16, heads=1000, sizes=(256, 1024, 2048), kernel_up_to=0),
    Curves(d=16, heads=150, sizes=(256, 1024), kernel_up_to=0, seeds=1),
    measure,
    checks,
    draw,
    TIDY,
    work=_work,
    points=points,
    revision=3,
)
