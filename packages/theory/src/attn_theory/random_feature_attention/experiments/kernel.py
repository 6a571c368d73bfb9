"""The infinite-head kernel against finite heads, symmetries, and the scores' distribution."""

from dataclasses import dataclass

import numpy as np
import torch

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least, at_most, close
from ...seeds import torch_generator
from ...tables import Tidy
from ..data import Inputs, sphere
from ..kernel import infinite_kernel
from ..model import RandomFeatureAttention, RandomFeatureMLP, RFAConfig, gram


@dataclass(frozen=True, kw_only=True)
class Kernel(Config):
    """Numbers of heads whose Gram matrix is compared with the formula."""

    d: int = 8
    keys: int = 8
    samples: int = 40
    heads: tuple[int, ...] = (20, 200, 2000, 20_000)


def measure(config: Kernel, point: None) -> Arrays:
    """Relative distances of Gram matrices, symmetries and scores."""
    inputs = sphere(
        config.samples, config.keys, config.d, torch_generator(config.stream, "kernel inputs")
    )
    exact = infinite_kernel(inputs, inputs)
    distance = []
    for heads in config.heads:
        model = RandomFeatureAttention(
            RFAConfig(config.d, heads), torch_generator(config.stream, f"kernel heads {heads}")
        )
        finite = gram(model, inputs, config.samples)
        distance.append(float((finite - exact).norm() / exact.norm()))
    order = torch.randperm(config.keys, generator=torch_generator(config.stream, "kernel order"))
    shuffled = Inputs(inputs.query, inputs.keys[:, order])
    doubled = Inputs(inputs.query, torch.cat((inputs.keys, inputs.keys), 1))
    attention = RandomFeatureAttention(
        RFAConfig(config.d, 200), torch_generator(config.stream, "symmetry")
    )
    network = RandomFeatureMLP(
        config.d, config.keys, 200, torch_generator(config.stream, "symmetry")
    )
    before = attention.features(inputs)
    [wide], [wide_shuffled] = network.chunks(inputs), network.chunks(shuffled)
    scores = {}
    for biased in (False, True):
        model = RandomFeatureAttention(
            RFAConfig(config.d, 400, biased), torch_generator(config.stream, "scores")
        )
        query, keys = inputs.lifted()
        value = torch.einsum("na,mab,nib->nmi", query, model.weight, keys)
        scores["biased" if biased else "plain"] = value.flatten().numpy()[::7]
    return {
        "distance": np.array(distance),
        "shuffled": float((attention.features(shuffled) - before).abs().max()),
        "doubled": float((attention.features(doubled) - before).abs().max()),
        "network shuffled": float((wide_shuffled - wide).abs().max()),
        **scores,
    }


def checks(result: Result) -> list[Check]:
    """Formula, symmetries and unit variance, within four times the spread over eight streams."""
    part, heads = result.parts[0], result.config.heads
    slope = np.polyfit(np.log(heads), np.log(part["distance"]), 1)[0]
    return [
        at_most(f"formula v {heads[-1]} heads, relative", part["distance"][-1], 0.03),
        close("exponent of the distance in the heads", slope, -0.5, 0.22),
        at_most("RFA: change when the keys are shuffled", part["shuffled"], 1e-6),
        at_most("RFA: change when the keys are duplicated", part["doubled"], 1e-6),
        at_least("network: change when the keys are shuffled", part["network shuffled"], 1e-3),
        close("variance of a score", part["plain"].var(), 1.0, 0.14),
    ]


def draw(result: Result):
    """Distance against heads, and histograms of scores."""
    figure, [[left, right]] = plotting.panels(1, 2)
    part, heads = result.parts[0], np.array(result.config.heads)
    plotting.points(left, heads, part["distance"], label="Gram matrix of $M$ heads")
    plotting.line(left, heads, part["distance"][0] * (heads / heads[0]) ** -0.5, index=6,
                  label="$M^{-1/2}$", style="--")  # fmt: skip
    left.set(xscale="log", yscale="log")
    plotting.labels(left, "heads $M$", "relative distance from the formula")
    for i, name in enumerate(("plain", "biased")):
        right.hist(part[name], 80, density=True, histtype="step", color=plotting.COLORS[i],
                   label={"plain": "RFA", "biased": "BRFA"}[name])  # fmt: skip
    x = np.linspace(-4, 4, 200)
    plotting.line(right, x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), index=6, label="N(0, 1)",
                  style="--")  # fmt: skip
    plotting.labels(right, "score", "density")
    return figure


EXPERIMENT = Experiment(
    entry("random_feature_attention.kernel"),
    Kernel(),
    Kernel(),
    measure,
    checks,
    draw,
    Tidy(
        {
            "distance": "heads",
            "shuffled": "",
            "doubled": "",
            "network shuffled": "",
        },
        {"heads": "heads"},
    ),
    more={"scores": Tidy({"plain": "sample", "biased": "sample"})},
    work=lambda c: c.samples * c.d**2 * c.keys * sum(c.heads),
)
