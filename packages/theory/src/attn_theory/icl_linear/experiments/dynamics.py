"""E3 and E4: the pattern that training finds, and how it gets there."""

from dataclasses import dataclass

import numpy as np
import torch

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least, at_most, close
from ...tables import Tidy
from .. import theory
from ..analysis import analyse
from ..data import LinearRegression
from ..model import ICLConfig, SeededLayers
from ..training import Recipe, train


@dataclass(frozen=True, kw_only=True)
class Dynamics(Config):
    """Full models, every seed at once; KQ is kept at some of the steps."""

    seeds: int = 8
    d: int = 5
    length: int = 40
    noise: float = 0.1
    heads: tuple[int, ...] = (2, 4)
    steps: int = 3000
    batch: int = 256
    lr: float = 5e-3
    snapshots: int = 5
    device: str = "cpu"

    def __post_init__(self):
        super().__post_init__()
        most = min(self.steps, 60) + 1
        if self.snapshots > most:
            raise ValueError(f"snapshots must be at most {most}, got {self.snapshots}")


def measure(config: Dynamics, heads: int) -> Arrays:
    """Trains and analyses all seeds."""
    every, kept = max(1, config.steps // 60), []
    wanted = np.linspace(0, config.steps // every, config.snapshots).round() * every

    @torch.no_grad()
    def watch(step: int, layers: SeededLayers) -> None:
        if step in wanted:
            kept.append(layers.key_query().cpu().numpy())

    trained = train(
        ICLConfig(config.d, heads=heads),
        LinearRegression(config.d, config.length, config.noise),
        Recipe(config.steps, config.batch, config.lr, log_every=every),
        seeds=config.seeds,
        device=config.device,
        purpose="dynamics",
        stream=config.stream,
        watch=watch,
    )
    layers = [trained.layers.layer(seed) for seed in range(config.seeds)]
    reports = [analyse(layer) for layer in layers]
    with torch.no_grad():
        final = trained.layers.key_query(), trained.layers.output_value()
    return {
        "heads": heads,
        "steps": np.array(trained.steps),
        "omega": np.array(trained.omega),
        "mu": np.array(trained.mu),
        "snapshots": np.array(kept),
        "snapshot_steps": wanted,
        "kq": final[0].cpu().numpy(),
        "ov": final[1].cpu().numpy(),
        "two_sided": np.array([r.two_sided for r in reports]),
        "roles": np.array([r.roles for r in reports]),
        "diagonal_share": np.array([r.diagonal_share for r in reports]),
        "diagonal_spread": np.array([r.diagonal_spread for r in reports]),
        "label_share": np.array([r.label_share for r in reports]),
        "zero_sum": np.array([r.zero_sum for r in reports]),
        "step": np.array([r.step for r in reports]),
    }


def checks(result: Result) -> list[Check]:
    """The pattern on every seed that found both signs in time, over the heads that are no dummies.

    A seed that finds the second sign late, when the rate has fallen, has not settled at the end.
    """
    out, config = [], result.config
    for part in result.parts:
        heads, found = int(part["heads"]), part["two_sided"]
        tag = f"H={heads}"
        share = found.mean()
        out.append(at_least(f"{tag}: share of seeds with both signs", share, 0.2, "measured"))
        halfway = part["omega"][len(part["steps"]) // 2]
        late = found & (halfway.min(1) * halfway.max(1) > 0)
        out.append(at_most(f"{tag}: share of seeds that split in the second half", late.mean(),
                           0.25, "measured"))  # fmt: skip
        found = found & ~late
        # Weak heads converge last: with more than two, each counts by its share of the step.
        omega, mu = part["omega"][-1][found], part["mu"][-1][found]
        weight = np.abs(omega * mu) / np.abs(omega * mu).sum(1, keepdims=True)
        diagonal, label = part["diagonal_share"][found], part["label_share"][found]
        if heads == 2:
            out.append(at_least(f"{tag}: least diagonal share of KQ", diagonal.min(), 0.99,
                                "official code"))  # fmt: skip
            out.append(at_least(f"{tag}: least share of OV on the label", label.min(), 0.99,
                                "official code"))  # fmt: skip
            spread = part["diagonal_spread"][found].max()
            out.append(at_most(f"{tag}: largest variance of the diagonal", spread, 1e-3, "chosen"))
            gap = np.abs(np.abs(omega[:, 0]) / np.abs(omega[:, 1]) - 1).max()
            out.append(at_most(f"{tag}: largest ||omega_1| / |omega_2| - 1|", gap, 0.05, "chosen"))
        else:
            least = (weight * diagonal).sum(1).min()
            out.append(at_least(f"{tag}: least weighted diagonal share", least, 0.9, "chosen"))
            least = (weight * label).sum(1).min()
            out.append(at_least(f"{tag}: least weighted share on the label", least, 0.8, "chosen"))
        largest = part["zero_sum"][found].max()
        short = config.steps < 2000
        out.append(at_most(f"{tag}: largest |sum mu| / max |mu|", largest, 0.05 if short else 0.02,
                           "chosen" if short else "official code"))  # fmt: skip
        eta = theory.dgd_step(config.d, config.length, config.noise)
        out.append(close(f"{tag}: step sum mu omega v DGD", part["step"][found].mean(), eta,
                         0.15 if short else 0.05))  # fmt: skip
    return out


def draw(result: Result):
    """omega and mu over steps, KQ over steps, final OV."""
    rows = len(result.parts)
    columns = max(5, result.config.snapshots)
    figure, axes = plotting.panels(2 * rows, columns, width=2.6, height=2.3)
    for i, part in enumerate(result.parts):
        seed = int(np.argmax(part["two_sided"]))
        _trajectories(axes[2 * i], part, result.config)
        limit = np.abs(part["snapshots"][-1, seed]).max()
        image, used = None, len(part["snapshot_steps"])
        for ax in (*axes[2 * i, 5:], *axes[2 * i + 1, used:]):
            ax.set_axis_off()
        for ax, step, kq in zip(
            axes[2 * i + 1, :used],
            part["snapshot_steps"],
            part["snapshots"][:, seed],
            strict=True,
        ):
            # Heads side by side with a blank column between.
            gap = np.full((kq.shape[1], 1), np.nan)
            picture = np.concatenate([np.hstack((head, gap)) for head in kq], 1)[:, :-1]
            image = plotting.heatmap(ax, picture, title=f"KQ, step {step:.0f}", limit=limit)
            ax.set(xticks=[], yticks=[])
            for h in range(len(kq)):
                ax.axvline(h * (kq.shape[1] + 1) + result.config.d - 0.5, ls="--", c="k", lw=0.5)
            ax.axhline(result.config.d - 0.5, ls="--", c="k", lw=0.5)
        if image is not None:
            figure.colorbar(image, ax=axes[2 * i + 1, -1], shrink=0.7)
    return figure


def _trajectories(axes, part: Arrays, config: Dynamics) -> None:
    found, steps = part["two_sided"], part["steps"]
    seed = int(np.argmax(found))
    tag = f"H={int(part['heads'])}, seed {seed}"
    for h in range(int(part["heads"])):
        plotting.line(axes[0], steps, part["omega"][:, seed, h], index=h)
        plotting.line(axes[1], steps, part["mu"][:, seed, h], index=h)
    plotting.labels(axes[0], "step", r"$\omega$", f"{tag} ({found.sum()}/{len(found)} two-sided)",
                    legend=False)  # fmt: skip
    plotting.labels(axes[1], "step", r"$\mu$", legend=False)
    axes[2].plot(steps, part["mu"].sum(2))
    axes[2].axhline(0, color="black", lw=0.5)
    plotting.labels(axes[2], "step", r"$\sum_h \mu_h$, every seed", legend=False)
    axes[3].plot(steps, (part["mu"] * part["omega"]).sum(2))
    eta = theory.dgd_step(config.d, config.length, config.noise)
    axes[3].axhline(eta, color="black", ls="--", label="DGD")
    plotting.labels(axes[3], "step", r"$\sum_h \mu_h \omega_h$")
    plotting.heatmap(axes[4], part["ov"][seed, :, 0], title="OV, a row per head")
    axes[4].axvline(config.d - 0.5, ls="--", c="k", lw=0.5)
    axes[4].set_yticks(range(int(part["heads"])))


EXPERIMENT = Experiment(
    entry("icl_linear.dynamics"),
    Dynamics(),
    Dynamics(heads=(4,), seeds=2, steps=900, batch=128, lr=1e-2),
    measure,
    checks,
    draw,
    Tidy(
        {
            "heads": "",
            "two_sided": "seed",
            "roles": "seed head",
            "diagonal_share": "seed head",
            "label_share": "seed head",
            "zero_sum": "seed",
            "step": "seed",
        }
    ),
    more={
        "trajectories": Tidy(
            {"heads": "", "omega": "step seed head", "mu": "step seed head"}, {"step": "steps"}
        ),
        "kq": Tidy(
            {"heads": "", "snapshots": "step seed head row column"}, {"step": "snapshot_steps"}
        ),
        "ov": Tidy({"heads": "", "ov": "seed head output column"}),
    },
    work=lambda c: c.seeds * c.steps * c.batch * c.length * sum(c.heads),
    points=lambda config: config.heads,
    revision=2,
)
