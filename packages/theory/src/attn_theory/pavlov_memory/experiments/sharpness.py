"""P7: how sharp a softmax has to be to pick one of n stored pairs."""

from dataclasses import dataclass

import numpy as np
import torch

from core_attn import attention_weights

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least, close
from ...seeds import torch_generator
from ...tables import Tidy
from .. import theory
from ..rules import unit


@dataclass(frozen=True, kw_only=True)
class Sharpness(Config):
    """Weight that a softmax of sharpness B gives to the stored pair; seeds are repetitions."""

    seeds: int = 16
    d: int = 256
    pairs: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    sharpness: tuple[float, ...] = tuple(float(x) for x in np.linspace(0.5, 12, 47))
    device: str = "cpu"


def measure(config: Sharpness, n: int) -> Arrays:
    """Mean weight against B, and the B at which it is one half."""
    generator = torch_generator(config.stream, f"sharpness {n}", config.device)
    k = unit(torch.randn(config.seeds, 1, n, config.d, generator=generator, device=config.device))
    weight = []
    for b in config.sharpness:
        seen = attention_weights(k, k, scale=b)
        weight.append(seen.diagonal(dim1=-2, dim2=-1).mean((1, 2)).double().cpu().numpy())
    weight = np.array(weight)
    critical = [np.interp(0.5, w, config.sharpness) for w in weight.T]
    return {
        "n": n,
        "weight": weight,
        "critical": np.array(critical),
        "law": theory.critical_sharpness(n, config.d),
    }


def checks(result: Result) -> list[Check]:
    """The critical B against its law, and its growth with log n."""
    out = []
    for part in result.parts:
        law = float(part["law"])
        out.append(close(f"critical B, n={int(part['n'])}", part["critical"].mean(), law,
                         0.04 * law))  # fmt: skip
    n, critical = result["n"], result["critical"].mean(1)
    fit = np.corrcoef(np.log(n), critical)[0, 1]
    out.append(at_least("correlation of critical B and log n", fit, 0.999))
    return out


def draw(result: Result):
    """Weight against B, and critical B against n."""
    figure, [[left, right]] = plotting.panels(1, 2)
    for i, part in enumerate(result.parts):
        plotting.line(left, result.config.sharpness, part["weight"].mean(1), index=i,
                      label=f"n={int(part['n'])}")  # fmt: skip
    left.axhline(0.5, color="black", lw=0.5)
    plotting.labels(left, "sharpness $B$", "weight on the stored pair")
    n, critical = result["n"], result["critical"]
    plotting.means(right, n, critical, label="measured")
    plotting.line(right, n, result["law"], index=1, label=r"$\log(n-1) + B^2/2d_k = B$")
    plotting.line(right, n, np.log(n), index=6, label=r"$\log n$", style=":")
    right.set_xscale("log")
    plotting.labels(right, "pairs $n$", "critical $B$")
    return figure


EXPERIMENT = Experiment(
    entry("pavlov_memory.sharpness"),
    Sharpness(),
    Sharpness(seeds=4, pairs=(8, 32, 128)),
    measure,
    checks,
    draw,
    Tidy({"n": "", "critical": "seed", "law": ""}),
    more={"weight": Tidy({"n": "", "weight": "sharpness seed"}, {"sharpness": "sharpness"})},
    work=lambda c: c.seeds * c.d * len(c.sharpness) * sum(n**2 for n in c.pairs),
    points=lambda config: config.pairs,
)
