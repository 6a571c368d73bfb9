"""python -m benchmarks.digits_claims [--parts NAMES]: what single systems claim, on the digits.

EViT, Sparsifiner and path pruning start from one dense model, kept in the output folder: 17 tokens,
6 blocks, trained on 1,200 digits from weights larger than the usual 0.02, with which it hardly
learns. Half of the other 597 is to choose on, half to judge on.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jsonargparse import auto_cli
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from attn_vision.models import VisionTransformer, VisionTransformerConfig
from attn_vision.models.blocks import Block
from attn_vision.models.convit import ConViTConfig
from attn_vision.models.evit import EViT, EViTConfig, RankingAttention, keep_schedule, multiply_adds
from attn_vision.models.gated_positional import GatedPositionalAttention
from attn_vision.models.path_ensemble import PathEnsemble, greedy_pruning
from attn_vision.models.sparsifiner import (
    SparseAttention,
    SparseBlock,
    Sparsifiner,
    SparsifinerConfig,
    reconstruction_loss,
)
from attn_vision.models.tokens import TokenState
from benchmarks.small_data import SETTINGS, Setting, accuracy, images_of, plain, trained
from core_attn import HeadGate, MixtureOfHeadAttention, attention_weights, record
from core_attn.testing.timing import table

S = Setting("digits", 1200, 25, 2e-3, batch=32, size=8, patch=2)
DENSE = {"image_size": 8, "patch_size": 2, "channels": 1, "classes": 10, "dim": 48, "depth": 6,
         "heads": 4}  # fmt: skip
SHORT = replace(S, epochs=8, lr=5e-4)


def held_out(images: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """The half to choose on, and the half to judge on."""
    return (images[1200:1500], labels[1200:1500]), (images[1500:], labels[1500:])


def dense(folder: Path) -> VisionTransformer:
    """The dense model, trained once."""
    model, path = VisionTransformerConfig(**DENSE).build(), folder / "digits_dense.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    torch.manual_seed(0)
    model = VisionTransformerConfig(**DENSE).build()
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    nn.init.normal_(model.pos_embed, std=0.3)  # type: ignore[arg-type]
    trained(model, S, *images_of("digits"))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path)
    return model


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The mean cross entropy."""
    with torch.no_grad():
        return float(F.cross_entropy(model(images), labels))


class OtherRanking(RankingAttention):
    """Ranks patches by the class token's weights, at random, or the least attended first."""

    rule = "attended"

    def ranked(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        new, weights = super().ranked(tokens)
        rules = {"attended": weights, "random": torch.rand_like(weights), "least": -weights}
        return new, rules[self.rule]


class ControlledEViT(EViT):
    """An EViT with a rule."""

    def make_block(self, index: int) -> Block:
        block, c = super().make_block(index), self.config
        block.attn = OtherRanking(c.dim, c.heads)
        return block

    def ranking_by(self, rule: str) -> "ControlledEViT":
        """Sets the rule."""
        for block in self.blocks:
            block.attn.rule = rule
        return self


def evit(folder: Path) -> None:
    """Keep 0.5 at the third and fifth block, as it is and fine-tuned, with controls."""
    base, (images, labels) = dense(folder), images_of("digits")
    test = held_out(images, labels)
    config = EViTConfig(**DENSE, keep_rates=keep_schedule(6, 0.5, after=(2, 4)))
    full = EViTConfig(**DENSE, keep_rates=(1.0,))
    cases: dict[str, tuple[EViTConfig, str]] = {
        "all patches": (full, "attended"),
        "attended, others fused": (config, "attended"),
        "attended, others dropped": (replace(config, fuse=False), "attended"),
        "random, others dropped": (replace(config, fuse=False), "random"),
        "least attended, others dropped": (replace(config, fuse=False), "least"),
    }
    rows = []
    for name, (shape, rule) in cases.items():
        model = ControlledEViT(shape).ranking_by(rule)
        model.load_state_dict(base.state_dict())
        torch.manual_seed(0)
        row = [name, f"{multiply_adds(shape) / multiply_adds(full):.2f}"]
        for tune in (False, True):
            model = trained(model, SHORT, images, labels) if tune else model.eval()
            row.append(f"{100 * accuracy(model, *both(test)):.1f}")
        rows.append([*row, milliseconds(model, images[:256])])
    print("\nEViT, keep 0.5 at blocks 3 and 5 of 6, fine-tuned for 8 epochs")
    print(table(("patches that go on", "products", "as it is %", "fine-tuned %", "ms"), rows))


def both(halves: tuple[tuple[Tensor, Tensor], ...]) -> tuple[Tensor, Tensor]:
    """All images that were not trained on, where nothing is chosen."""
    (a, b), (c, d) = halves
    return torch.cat([a, c]), torch.cat([b, d])


def milliseconds(model: nn.Module, images: Tensor) -> str:
    """The median of five passes."""
    times = []
    with torch.no_grad():
        for _ in range(5):
            start = time.perf_counter()
            model(images)
            times.append(time.perf_counter() - start)
    return f"{1e3 * statistics.median(times):.0f}"


class OtherKeys(SparseAttention):
    """Chooses the predicted keys, the least predicted, random ones, or those nearest."""

    rule = "predicted"

    def chosen(self, prediction, alive):
        scores = prediction.scores
        if self.rule == "predicted":
            return super().chosen(prediction, alive)
        if self.rule == "random":
            other = torch.rand_like(scores)
        elif self.rule == "least":
            other = -scores
        else:
            side = round((scores.shape[-1] - 1) ** 0.5)
            place = torch.cartesian_prod(*[torch.arange(float(side))] * 2)
            near = -torch.cdist(place, place)
            other = F.pad(near, (1, 0)).expand(scores.shape)  # the class token always
        return super().chosen(prediction._replace(scores=other), alive)


class ControlledSparsifiner(Sparsifiner):
    """A Sparsifiner with a rule."""

    def make_block(self, index: int) -> SparseBlock:
        block = super().make_block(index)
        block.attn = OtherKeys(self.config, index)
        return block

    def choosing_by(self, rule: str) -> "ControlledSparsifiner":
        """Sets the rule."""
        for block in self.blocks:
            block.attn.rule = rule
        return self


def sparsifiner(folder: Path) -> None:
    """The predictor's keys beside the nearest, random and least predicted, equally many."""
    base, (images, labels) = dense(folder), images_of("digits")
    test = both(held_out(images, labels))
    rows, config = [], SparsifinerConfig(**DENSE, keep_rates=(0.25,), reduce_n=2)
    model = Sparsifiner(config)
    model.load_state_dict(base.state_dict(), strict=False)
    errors = predictors_trained(model, images)
    state = model.state_dict()
    print("\nSparsifiner: mean squared error of the predicted attention, epoch by epoch: "
          + ", ".join(f"{e:.2e}" for e in errors))  # fmt: skip
    print(f"dense model: {100 * accuracy(base, *test):.1f} %")
    for rate in (0.25, 0.1):
        for rule in ("predicted", "nearest", "random", "least"):
            model = ControlledSparsifiner(replace(config, keep_rates=(rate,))).choosing_by(rule)
            model.load_state_dict(state)
            torch.manual_seed(0)
            row = [f"{rule}, {rate:.0%}", f"{covered(model.eval(), test[0]):.2f}"]
            row.append(f"{100 * accuracy(model, *test):.1f}")
            for name, p in model.named_parameters():
                p.requires_grad_("mask_predictor" not in name)
            row.append(f"{100 * accuracy(trained(model, SHORT, images, labels), *test):.1f}")
            rows.append(row)
            print(*row, flush=True)
    print(table(("keys", "weight covered", "as it is %", "fine-tuned %"), rows))


def predictors_trained(model: Sparsifiner, images: Tensor, epochs: int = 20) -> list[float]:
    """Phase 1: the predictors learn the attention of their own frozen backbone."""
    for name, p in model.named_parameters():
        p.requires_grad_("mask_predictor" in name)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    torch.manual_seed(0)
    errors = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(1200).split(100):
            maps = model.reconstructed(images[rows])
            loss = reconstruction_loss(maps)
            optimizer.zero_grad()
            (0.01 * loss).backward()
            optimizer.step()
            total += float(loss.detach()) / maps[0][1].numel() / 12
        errors.append(total)
    return errors


@torch.no_grad()
def covered(model: Sparsifiner, images: Tensor) -> float:
    """The share of dense attention that falls on the chosen keys, over patches and blocks."""
    shares: list[float] = []

    def measure(attn: SparseAttention) -> Callable:
        def hook(module, args, prediction):
            weights = attention_weights(args[0], args[1])
            mask = attn.mask(prediction, None)
            shares.append(float((weights * mask)[:, :, 1:].sum(-1).mean()))

        return hook

    hooks = [b.attn.mask_predictor.register_forward_hook(measure(b.attn)) for b in model.blocks]
    model(images)
    for hook in hooks:
        hook.remove()
    return statistics.fmean(shares)


def paths(folder: Path) -> None:
    """Paths pruned and scaled on one half, judged on the other."""
    base, (images, labels) = dense(folder), images_of("digits")
    choose, judge = held_out(images, labels)
    whole = PathEnsemble(base, scale=None)
    rows = [("nothing", base)]
    without = whole.leave_one_out(choose[0])
    order = {
        name: float(F.cross_entropy(scores, choose[1]))
        for name, scores in zip(whole.names, without, strict=True)
    }
    listed = ", ".join(f"{k} {v:.3f}" for k, v in sorted(order.items(), key=lambda x: x[1]))
    before = loss_of(base, *choose)
    print(f"\nLoss on the choosing half without each path, all paths {before:.3f}: {listed}")
    pruned = PathEnsemble(base, scale=None)
    history = greedy_pruning(pruned, [choose])
    rows.append((f"pruned {', '.join(name for name, _ in history[1:])}", pruned))
    scaled = scales_trained(PathEnsemble(base), *choose)
    rows.append(("EnsembleScale", scaled))
    lines = []
    for name, model in rows:
        measured = [[loss_of(model, *x), accuracy(model, *x)] for x in (choose, judge)]
        lines.append([name, *(f"{a:.3f} / {100 * b:.1f}" for a, b in measured)])
    print(table(("what", "chosen on: loss / %", "judged on: loss / %"), lines))


def scales_trained(ensemble: PathEnsemble, images: Tensor, labels: Tensor) -> PathEnsemble:
    """EnsembleScale alone, for 150 steps."""
    with torch.no_grad():
        cached = ensemble.paths(images)
    assert ensemble.ensemble_scale is not None
    optimizer = torch.optim.Adam([ensemble.ensemble_scale], 1e-3)
    for _ in range(150):
        scores = ensemble.classified(ensemble.combined(cached))
        optimizer.zero_grad()
        F.cross_entropy(scores, labels).backward()
        optimizer.step()
    return ensemble


class GatedMixer(nn.Module):
    """MoH's attention on token states."""

    def __init__(self, *args: int):
        super().__init__()
        self.layer = MixtureOfHeadAttention(*args)

    def forward(self, state: TokenState) -> Tensor:
        return self.layer(state.tokens)


@dataclass(frozen=True)
class GatedConfig(VisionTransformerConfig):
    """A ViT with 2 shared heads, and `routed` of the others per token; 0 for plain heads."""

    routed: int = 0


class GatedViT(VisionTransformer):
    """A ViT whose heads have gates."""

    config: GatedConfig

    def make_mixer(self, index: int) -> nn.Module:
        c = self.config
        if not c.routed:
            return super().make_mixer(index)
        return GatedMixer(c.dim, c.heads, 2, c.routed)


def heads(folder: Path) -> None:
    """MoH beside plain heads: accuracy, share of the heads that act, least used head."""
    rows, (images, labels) = [], images_of("digits")
    s, test = SETTINGS["digits"], (images[400:], labels[400:])
    for name, routed in (("8 plain heads", 0), ("2 + 4 of 6", 4), ("2 + 2 of 6", 2)):
        found, active, least = [], [1.0], [1.0]
        for seed in range(2):
            torch.manual_seed(seed)
            model = GatedViT(GatedConfig(**plain(s) | {"heads": 8}, routed=routed))
            model = trained(model, s, images, labels)
            found.append(100 * accuracy(model, *test))
            gates: list[Tensor] = []

            def note(module, args, y, gates=gates):
                gates.append(y > 0)

            for module in model.modules():
                if isinstance(module, HeadGate):
                    module.register_forward_hook(note)
            if routed:
                accuracy(model, *test)
                use = torch.cat([g.flatten(0, 1) for g in gates]).float()
                per_layer = torch.stack([g.flatten(0, 1).float().mean(0) for g in gates])
                active.append(float(use.mean()))
                least.append(float(per_layer.view(-1, 3, 8).mean(0)[:, 2:].min()))
        rows.append([name, " ".join(f"{x:.1f}" for x in found), f"{active[-1]:.0%}",
                     f"{100 * min(least):.1f}"])  # fmt: skip
    print("\nMoH: ViT on 400 digits, 60 epochs, two seeds")
    print(table(("heads", "accuracy %", "active", "tokens of the least used head %"), rows))


def gates(folder: Path) -> None:
    """ConViT: gates and non-locality of each head while it trains."""
    s, (images, labels) = SETTINGS["digits"], images_of("digits")
    torch.manual_seed(0)
    model = ConViTConfig(**plain(s), local_layers=2).build()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, GatedPositionalAttention)}
    place = torch.cartesian_prod(*[torch.arange(4.0)] * 2)
    distance, rows = torch.cdist(place, place), []

    @torch.no_grad()
    def note(epoch: int) -> None:
        if epoch % 15:
            return
        model.eval()
        with record(model, "pattern") as seen:
            model(images[400:600])
        model.train()
        for name, layer in layers.items():
            far = (seen[name] * distance).sum(-1).mean((0, 2))
            rows.append([str(epoch), name, *(" ".join(f"{x:.2f}" for x in row)
                                             for row in (layer.gate(), far))])  # fmt: skip

    note(0)
    trained(model, s, images, labels, after=note)
    print("\nConViT on 400 digits: gates (1 looks by position alone) and non-locality in patches, "
          f"uniform attention {float(distance.mean()):.2f}")  # fmt: skip
    print(table(("epoch", "layer", "gates of the heads", "non-locality of the heads"), rows))


PARTS = {"evit": evit, "sparsifiner": sparsifiner, "paths": paths, "heads": heads, "gates": gates}


def main(parts: Sequence[str] = tuple(PARTS), folder: str = "runs") -> None:
    """Prints a table for each part.

    Args:
        parts: of evit, sparsifiner, paths, heads and gates.
        folder: where the dense model is kept.
    """
    for part in parts:
        PARTS[part](Path(folder))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
