"""P8: trained layers recall pairs in the order the laws predict."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from core_attn import delta_rule, linear_attention

from ... import montecarlo, plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_most, close
from ...optimize import CosineAdam
from ...seeds import torch_generator
from ...tables import Tidy


@dataclass(frozen=True, kw_only=True)
class TrainedRecall(Config):
    """n pairs out of a vocabulary, then queries for all of them in another order."""

    seeds: int = 6
    widths: tuple[int, ...] = (4, 8, 16, 32)
    pairs: int = 16
    vocabulary: int = 64
    values: int = 16
    batch: int = 32
    steps: int = 400
    lr: float = 0.02
    device: str = "cpu"

    def __post_init__(self):
        super().__post_init__()
        if self.pairs > self.vocabulary:
            raise ValueError(
                f"pairs must be at most vocabulary = {self.vocabulary}, got {self.pairs}"
            )


def measure(config: TrainedRecall, point: tuple[str, int]) -> Arrays:
    """Trains all seeds of one rule at one width; error and accuracy of recall on new sequences."""
    rule, width = point
    generator = torch_generator(config.stream, f"trained {rule} {width}", config.device)
    seeds, size = config.seeds, config.values

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(seeds, *shape, generator=generator, device=config.device)

    keys = normal(config.vocabulary, width).requires_grad_()
    readout = torch.eye(size, device=config.device).repeat(seeds, 1, 1).requires_grad_()
    strength = torch.zeros(seeds, 1, 1, device=config.device, requires_grad=True)
    # Values are fixed codes of unit variance: what is recalled is compared with them.
    values = normal(size, size)
    adam = CosineAdam([keys, readout, strength], lr=config.lr, steps=config.steps)
    which = torch.arange(seeds, device=config.device)[:, None, None]

    def recalled_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
        shape = (seeds, config.batch)
        noise = torch.rand(*shape, config.vocabulary, generator=generator, device=config.device)
        symbols = noise.argsort(-1)[..., : config.pairs]
        labels = torch.randint(
            0, size, (*shape, config.pairs), generator=generator, device=config.device
        )
        k = F.normalize(keys[which, symbols], dim=-1)
        beta = (2 * strength.sigmoid()).expand(k.shape[:-1])
        write = delta_rule if rule == "delta" else linear_attention
        _, state = write(k, k, values[which, labels], beta=beta, scale=1.0)
        # Every key is asked for again once all pairs are written.
        return k @ state @ readout.unsqueeze(1), labels

    for _ in range(config.steps):
        recalled, labels = recalled_and_labels()
        adam.step((recalled - values[which, labels]).square().mean((1, 2, 3)).sum())
    errors, right = [], []
    with torch.no_grad():
        for _ in range(16):
            recalled, labels = recalled_and_labels()
            want = values[which, labels]
            gap = (recalled - want).square().sum((1, 2, 3)) / want.square().sum((1, 2, 3))
            errors.append(gap)
            nearest = torch.cdist(recalled, values.unsqueeze(1)).argmin(-1)
            right.append((nearest == labels).float().mean((1, 2)))
    return {
        "delta": rule == "delta",
        "width": width,
        "error": torch.stack(errors).mean(0).cpu().numpy(),
        "accuracy": torch.stack(right).mean(0).cpu().numpy(),
        "beta": (2 * strength.detach().sigmoid()).flatten().cpu().numpy(),
    }


def checks(result: Result) -> list[Check]:
    """The delta rule's error is below, accuracy level; both gain with width."""
    out = []
    is_delta, width = result["delta"], result["width"]
    error, accuracy = result["error"].mean(1), result["accuracy"].mean(1)
    for i, w in enumerate(width[is_delta]):
        ratio = error[is_delta][i] / error[~is_delta][i]
        slack = 3 * difference_error(result["error"], is_delta, i) / error[~is_delta][i]
        out.append(at_most(f"error, delta / linear, less 3 standard errors, d_k={w}",
                           ratio - slack, 1.0, "chosen"))  # fmt: skip
        gap = accuracy[is_delta][i] - accuracy[~is_delta][i]
        slack = 4 * difference_error(result["accuracy"], is_delta, i)
        out.append(close(f"accuracy, delta - linear, d_k={w}", gap, 0.0, 0.05 + slack, "measured"))
    for name, chosen in (("linear", ~is_delta), ("delta", is_delta)):
        worst = np.diff(error[chosen]).max()
        out.append(at_most(f"{name}: largest change of the error on doubling d_k", worst, -0.05,
                           "chosen"))  # fmt: skip
    return out


def difference_error(values: np.ndarray, is_delta: np.ndarray, i: int) -> float:
    """Standard error over seeds of delta's mean less linear attention's, at the i-th width."""
    pair = values[is_delta][i], values[~is_delta][i]
    return float(np.hypot(*(montecarlo.standard_error(seeds) for seeds in pair)))


def draw(result: Result):
    """Error and accuracy against width."""
    figure, [axes] = plotting.panels(1, 2)
    for ax, name in zip(axes, ("error", "accuracy"), strict=True):
        for i, (label, flag) in enumerate((("linear attention", False), ("delta rule", True))):
            chosen = result["delta"] == flag
            values, width = result[name][chosen], result["width"][chosen]
            plotting.means(ax, width, values, index=i, label=label)
            plotting.line(ax, width, values.mean(1), index=i, style=":")
        ax.set_xscale("log", base=2)
        plotting.labels(ax, "key dimension $d_k$", f"{name}, recall of {result.config.pairs} pairs")
    axes[1].axhline(1 / result.config.values, color="black", lw=0.7, ls="--")
    return figure


EXPERIMENT = Experiment(
    entry("pavlov_memory.trained"),
    TrainedRecall(),
    TrainedRecall(seeds=3, widths=(16, 32), steps=120, batch=16),
    measure,
    checks,
    draw,
    Tidy(
        {"delta": "", "width": "", "error": "seed", "accuracy": "seed", "beta": "seed"},
        rename={"error": "relative_error"},
    ),
    work=lambda c: c.seeds * c.steps * c.batch * c.pairs * sum(c.widths),
    points=lambda config: [(rule, w) for rule in ("linear", "delta") for w in config.widths],
    revision=3,
)
