"""P2: two meanings of capacity: average fidelity, and nothing wrong at all."""

from dataclasses import dataclass

import numpy as np
import torch

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, close, near
from ...references import known
from ...seeds import torch_generator
from ...tables import Tidy
from .. import theory
from ..references import REFERENCES
from ..rules import unit


@dataclass(frozen=True, kw_only=True)
class Capacity(Config):
    """Largest n at an average error of tau, and with all bits of all items right half the time."""

    widths: tuple[int, ...] = (16, 64, 256, 1024)
    tau: float = 0.25
    bits: int = 32
    repetitions: int = 400
    device: str = "cpu"


def measure(config: Capacity, d: int) -> Arrays:
    """Capacities of one width; each repetition adds items one by one to the same memory."""
    generator = torch_generator(config.stream, f"capacity {d}", config.device)
    most = round(0.8 * d / np.log(d)) + 10
    faultless = torch.zeros(most)
    guaranteed = []
    for _ in range(config.repetitions):
        k = unit(torch.randn(most, d, generator=generator, device=config.device))
        signs = torch.randint(0, 2, (most, config.bits), generator=generator, device=config.device)
        v = 2.0 * signs - 1
        overlap = k @ k.T
        # recalled[i, n] is item i out of a memory of the first n + 1 items.
        recalled = (overlap[:, :, None] * v).cumsum(1)
        right = (recalled * v[:, None] > 0).all(-1)
        seen = torch.ones(most, most, dtype=torch.bool).triu()
        faultless += (right | ~seen).all(0).float()
        worst = overlap.abs().fill_diagonal_(0).cummax(0).values.diagonal().cummax(0).values
        holds = torch.arange(most) * worst < 1
        guaranteed.append(int(holds.long().cumprod(0).sum()))
    share = (faultless / config.repetitions).numpy()
    below = np.flatnonzero(share < 0.5)
    return {
        "d": d,
        "average": _average(config, d),
        "faultless": below[0] if len(below) else most,
        "n": np.arange(1, most + 1),
        "share": share,
        "guaranteed": np.median(guaranteed),
    }


def _average(config: Capacity, d: int) -> float:
    """n at which the measured error crosses tau, between two loads, by interpolation."""
    generator = torch_generator(config.stream, f"capacity average {d}", config.device)
    around = np.unique(np.round(np.array((0.6, 1.4)) * config.tau * d).astype(int)) + 1
    errors = []
    for n in around:
        values = []
        for _ in range(max(8, 4096 // d)):
            k = unit(torch.randn(n, d, generator=generator, device=config.device))
            values.append(float((k @ k.T).square().sum(1).mean() - 1))
        errors.append(np.mean(values))
    return float(np.interp(config.tau, errors, around))


def checks(result: Result) -> list[Check]:
    """Both capacities, the guarantee from coherence, and the exponents."""
    out = []
    references = known(REFERENCES, "capacity", result.config)
    for part in result.parts:
        d = int(part["d"])
        law = theory.average_capacity(result.config.tau, d)
        out.append(close(f"n at error {result.config.tau}, d={d}", part["average"], law,
                         0.05 * law))  # fmt: skip
        law = theory.faultless_capacity(result.config.bits, d)
        out.append(close(f"n without a fault, d={d}", part["faultless"], law, 1 + 0.04 * law))
        for name, what in (("faultless", "without a fault"), ("guaranteed", "guaranteed")):
            if d in references[name]:
                out.append(near(f"n {what}, d={d}, v a coarser sweep", part[name],
                                references[name][d]))  # fmt: skip
    fits = exponents(result)
    out.append(close("exponent of d, average error (n - 1)", fits["average"], 1.0, 0.05))
    out.append(close("exponent of d, without a fault", fits["faultless"], 0.7, 0.06, "measured"))
    if len(result.parts) >= 4:
        d = result["d"]
        law = np.polyfit(np.log(d), np.log(np.sqrt(d / np.log(d))), 1)[0]
        out.append(close("exponent of d, guaranteed, v sqrt(d / log d)", fits["guaranteed"], law,
                         0.06))  # fmt: skip
    return out


def exponents(result: Result) -> dict[str, float]:
    """Slopes of log n in log d."""
    x = np.log(result["d"])
    # A single pair never errs: the law 1 + tau d is a power of d for the pairs beyond it.
    counts = {"average": result["average"] - 1}
    counts |= {name: result[name] for name in ("faultless", "guaranteed")}
    return {name: float(np.polyfit(x, np.log(n), 1)[0]) for name, n in counts.items()}


def draw(result: Result):
    """Capacities against width, with guides."""
    figure, [[ax]] = plotting.panels(width=5.4, height=4.6)
    d, fits = result["d"], exponents(result)
    fine = np.geomspace(d.min(), d.max(), 100)
    labels = {
        "average": f"average error {result.config.tau}",
        "faultless": "all items right, half the time",
        "guaranteed": "guaranteed by coherence",
    }
    for i, (name, label) in enumerate(labels.items()):
        label = rf"{label}: $d_k^{{\,{fits[name]:.2f}}}$"
        plotting.points(ax, d, result[name], index=i, label=label)
    references = known(REFERENCES, "capacity", result.config)
    for i, name in enumerate(labels):
        plotting.stars(ax, references[name], index=i, label="earlier run" if i == 1 else None)
    tau = result.config.tau
    plotting.line(ax, fine, theory.average_capacity(tau, fine), index=0, label=r"$1 + \tau d_k$")
    law = [theory.faultless_capacity(result.config.bits, x) for x in fine]
    plotting.line(
        ax,
        fine,
        law,
        index=1,
        label=rf"$(1 - \mathrm{{bit\ error}})^{{{result.config.bits} n}} = 1/2$",
    )
    plotting.line(ax, fine, np.sqrt(fine), index=6, label=r"$\sqrt{d_k}$", style=":")
    ax.set(xscale="log", yscale="log")
    plotting.labels(ax, "key dimension $d_k$", "capacity $n$", legend=False)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


EXPERIMENT = Experiment(
    entry("pavlov_memory.capacity"),
    Capacity(),
    Capacity(widths=(16, 64, 256), repetitions=100),
    measure,
    checks,
    draw,
    Tidy({"d": "", "average": "", "faultless": "", "guaranteed": ""}),
    more={"share": Tidy({"d": "", "share": "n"}, {"n": "n"})},
    work=lambda c: c.repetitions * c.bits * sum(d**2 for d in c.widths),
    points=lambda config: config.widths,
    revision=2,
)
