"""P3: the delta rule over several passes, and the floor it can reach."""

from dataclasses import dataclass

import numpy as np
import torch

from core_attn import bidirectional_linear_attention, delta_rule

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most, close, near
from ...references import known
from ...seeds import torch_generator
from ...tables import Tidy
from .. import theory
from ..references import REFERENCES
from ..rules import unit


@dataclass(frozen=True, kw_only=True)
class Passes(Config):
    """Numbers of pairs at width d; seeds are repetitions of keys and values."""

    seeds: int = 64
    d: int = 64
    pairs: tuple[int, ...] = (16, 32, 63, 64, 96)
    passes: int = 400
    device: str = "cpu"


def measure(config: Passes, n: int) -> Arrays:
    """Error after each pass, with beta = 1 and with a beta that falls."""
    generator = torch_generator(config.stream, f"passes {n}", config.device)
    shape = {"generator": generator, "device": config.device, "dtype": torch.float64}
    k = unit(torch.randn(config.seeds, 1, n, config.d, **shape))
    v = torch.randn(config.seeds, 1, n, 32, **shape)
    power = v.square().mean((1, 2, 3))

    def relative(recalled: torch.Tensor) -> np.ndarray:
        return ((recalled - v).square().mean((1, 2, 3)) / power).cpu().numpy()

    curves = []
    for falling in (False, True):
        state, curve = None, []
        for p in range(config.passes):
            rate = 1 / (1 + p / 4) if falling else 1.0
            beta = torch.full((n,), rate, dtype=k.dtype, device=k.device)
            _, state = delta_rule(k, k, v, beta=beta, state=state, scale=1.0)
            curve.append(relative(k @ state))
        curves.append(curve)
    hebbian = relative(bidirectional_linear_attention(k, k, v, scale=1.0))
    best = torch.linalg.lstsq(k, v, driver="gelsd").solution
    return {
        "n": n,
        "error": np.array(curves),
        "mean": np.mean(curves, -1),
        "mean_error": np.std(curves, -1, ddof=1) / config.seeds**0.5,
        "one_pass": np.array(curves)[0, 0],
        "hebbian": hebbian,
        "floor": relative(k @ best),
        "law": theory.delta_floor(n, config.d),
    }


def checks(result: Result) -> list[Check]:
    """One pass, many passes, and the floor."""
    out, d = [], result.config.d
    references = known(REFERENCES, "passes", result.config)
    for part in result.parts:
        n = int(part["n"])
        mean = part["error"].mean(-1)
        se = part["error"].std(-1) / result.config.seeds**0.5
        for name, step in (
            ("after 10 passes", 9), ("after 200 passes", 199), ("beta = 1", -1)
        ):  # fmt: skip
            if n in references[name] and step < mean.shape[1]:
                out.append(near(f"{name}, n={n}", mean[0, step], references[name][n], se[0, step]))
        law = theory.one_pass_error(n, d)
        out.append(close(f"one pass v recursion, n={n}", mean[0, 0], law, 4 * se[0, 0]))
        if n <= d:
            out.append(at_most(f"one pass / Hebbian, n={n}", mean[0, 0] / part["hebbian"].mean(),
                               0.75))  # fmt: skip
        if n < d / 2:
            out.append(at_most(f"after {mean.shape[1]} passes, n={n}", mean[0, -1], 1e-8))
        if n > d:
            law = float(part["law"])
            out.append(close(f"least squares, n={n}", part["floor"].mean(), law, 0.01))
            out.append(close(f"beta = 1 / (1 + p/4), n={n}", mean[1, -1], law, 0.02))
    return out


def draw(result: Result):
    """Error against passes, and one pass against Hebbian."""
    figure, [[left, right]] = plotting.panels(1, 2)
    steps = np.arange(1, result.config.passes + 1)
    for i, part in enumerate(result.parts):
        for j, style in enumerate(("-", "--")):
            label = f"n={int(part['n'])}" if j == 0 else None
            left.plot(steps, np.maximum(part["error"][j].mean(-1), 1e-6), style,
                      color=plotting.COLORS[i], label=label)  # fmt: skip
        if part["law"] > 0:
            left.axhline(float(part["law"]), color="black", ls=":", lw=1, label="floor $1 - d_k/n$")
    left.set(xscale="log", yscale="log", ylim=(1e-6, 2))
    plotting.labels(
        left, "pass $p$", r"error (dashed: falling $\beta$)", f"$d_k = {result.config.d}$"
    )
    n = result["n"]
    first = np.array([part["error"][0, 0] for part in result.parts])
    plotting.means(right, n, first, index=0, label="delta, one pass")
    hebbian = result["hebbian"]
    plotting.means(right, n, hebbian, index=1, label="Hebbian")
    plotting.line(right, n, theory.hebbian_error(n, result.config.d), index=1, label="$(n-1)/d_k$")
    plotting.line(right, n, result["law"], index=6, label="floor", style=":")
    once = [theory.one_pass_error(int(x), result.config.d) for x in n]
    plotting.line(right, n, once, index=0, label="recursion")
    plotting.labels(right, "pairs $n$", "error")
    return figure


EXPERIMENT = Experiment(
    entry("pavlov_memory.passes"),
    Passes(),
    Passes(seeds=16, passes=200, pairs=(16, 63)),
    measure,
    checks,
    draw,
    Tidy({"n": "", "one_pass": "seed", "hebbian": "seed", "floor": "seed", "law": ""}),
    more={
        "curves": Tidy(
            {"n": "", "mean": "beta pass", "mean_error": "beta pass"},
            {"beta": ("1", "1/(1+p/4)")},
        )
    },
    work=lambda c: c.seeds * c.passes * c.d * sum(c.pairs),
    points=lambda config: config.pairs,
    revision=2,
)
