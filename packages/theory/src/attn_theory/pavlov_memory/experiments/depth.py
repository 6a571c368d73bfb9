"""P4: errors compound over layers; width and heads trade one for one; clean-up stops it."""

from dataclasses import dataclass

import numpy as np
import torch

from core_attn import attention, bidirectional_linear_attention

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most, close
from ...seeds import torch_generator
from ...tables import Tidy
from .. import theory
from ..rules import unit


@dataclass(frozen=True, kw_only=True)
class Depth(Config):
    """Chains of L layers with fresh codes; seeds are repetitions.

    Attributes:
        chains: flat groups of four: n, d, layers, heads.
        sharpness: of the softmax that cleans up.
    """

    seeds: int = 48
    chains: tuple[int, ...] = (
        *(32, 64, 1, 1),
        *(32, 64, 4, 1),
        *(32, 64, 8, 4),
        *(32, 256, 8, 1),
        *(64, 64, 4, 8),
        *(64, 512, 4, 1),
    )
    sharpness: float = 12.0
    device: str = "cpu"

    def __post_init__(self):
        super().__post_init__()
        if len(self.chains) % 4:
            raise ValueError(f"chains must be groups of four (n, d, L, H), got {len(self.chains)}")


def points(config: Depth) -> list[tuple[int, int, int, int]]:
    """The chains, four numbers each."""
    n, d, layers, heads = (config.chains[i::4] for i in range(4))
    return list(zip(n, d, layers, heads, strict=True))


def measure(config: Depth, chain: tuple[int, int, int, int]) -> Arrays:
    """Relative error after the last layer, linear and cleaned up."""
    n, d, layers, heads = chain
    generator = torch_generator(config.stream, f"depth {chain}", config.device)

    def codes() -> torch.Tensor:
        shape = (config.seeds, heads, n, d)
        return unit(torch.randn(*shape, generator=generator, device=config.device))

    keys = codes()
    linear = clean = keys
    for _ in range(layers):
        following = codes()
        linear = _read(linear, keys, following)
        # What is read is compared with every stored code, and the nearest one takes over.
        noisy = _read(clean, keys, following)
        clean = attention(noisy, following, following, scale=config.sharpness)
        keys = following
    errors = [(x - keys).square().sum((1, 2, 3)) / (n * heads) for x in (linear, clean)]
    return {
        "n": n,
        "d": d,
        "layers": layers,
        "heads": heads,
        "linear": errors[0].double().cpu().numpy(),
        "clean": errors[1].double().cpu().numpy(),
        "law": theory.depth_error(n, d, layers, heads),
    }


def _read(x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Every head recalls the codes of all heads of the next layer; the heads are averaged."""
    seeds, heads, n, d = values.shape
    wide = values.transpose(1, 2).reshape(seeds, 1, n, heads * d).expand(-1, heads, -1, -1)
    out = bidirectional_linear_attention(x, keys, wide, scale=1.0).mean(1)
    return out.view(seeds, n, heads, d).transpose(1, 2)


def checks(result: Result) -> list[Check]:
    """The law for every chain; the cleaned chain."""
    out = []
    for part in result.parts:
        n, d, layers, heads = (int(part[name]) for name in ("n", "d", "layers", "heads"))
        law = float(part["law"])
        se = part["linear"].std() / result.config.seeds**0.5
        tolerance = max(0.12 * law if layers > 1 else 0.02 * law, 3 * se)
        out.append(close(f"n={n}, d={d}, L={layers}, H={heads}", part["linear"].mean(), law,
                         tolerance))  # fmt: skip
        if heads == 1 and layers > 1:
            out.append(at_most(f"cleaned up, n={n}, d={d}, L={layers}", part["clean"].mean(), 1e-4,
                               "measured"))  # fmt: skip
    return out


def draw(result: Result):
    """Measured against law, linear and cleaned."""
    figure, [[ax]] = plotting.panels(width=5)
    law, bars = result["law"], result["linear"].std(1) / result.config.seeds**0.5
    plotting.points(ax, law, result["linear"].mean(1), bars, label="linear read-out")
    plotting.points(ax, law, np.maximum(result["clean"].mean(1), 1e-8), index=1,
                    label=f"softmax clean-up, B={result.config.sharpness:g}")  # fmt: skip
    fine = np.geomspace(0.3, 6, 50)
    plotting.line(ax, fine, fine, index=6, label="law")
    for i, part in enumerate(result.parts):
        n, d, layers, heads = (int(part[name]) for name in ("n", "d", "layers", "heads"))
        same = np.flatnonzero(np.isclose(law, part["law"])).tolist()
        # Chains of one law lie on one point: their labels stand above it, one over the other.
        height = 6 + 9 * same.index(i) if len(same) > 1 else -9
        ax.annotate(f"{n},{d},{layers},{heads}", (part["law"], part["linear"].mean()), fontsize=7,
                    xytext=(4, height), textcoords="offset points")  # fmt: skip
    ax.set(xscale="log", yscale="log")
    plotting.ticks(ax, (0.3, 0.5, 1, 2, 4))
    plotting.labels(ax, "$(1 + (n-1)/(d_k H))^L - 1$", "relative error ($n, d_k, L, H$)")
    return figure


EXPERIMENT = Experiment(
    entry("pavlov_memory.depth"),
    Depth(),
    Depth(seeds=12),
    measure,
    checks,
    draw,
    Tidy(
        {
            "n": "",
            "d": "",
            "layers": "",
            "heads": "",
            "linear": "seed",
            "clean": "seed",
            "law": "",
        }
    ),
    work=lambda c: c.seeds * sum(n * n * d * layers * heads for n, d, layers, heads in points(c)),
    points=points,
)
