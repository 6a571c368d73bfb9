"""Training of a potential on energies, forces and stress."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from ase.data import chemical_symbols
from pytorch_lightning import LightningDataModule
from torch import Tensor, nn

from core_attn.training import Exhibit, Task
from core_attn.training.callbacks import Compile

from ..data.labelled import Labelled
from ..data.structures import StructureData
from ..models import VARIANTS, Network, create
from ..official import gradient_from_direct
from ..potential import Potential, config_from_dict, config_to_dict, load_potential
from . import pictures
from .losses import energy_loss, force_loss, lr_factor, stress_loss


class PotentialTraining(Task):
    """Trains a named model on (energy - references) / scale and forces / scale.

    Energy, forces and stress share one scale, the force's root mean square: with gradient forces
    anything else would be inconsistent. References and scale come from the data. AdamW leaves
    norms, embeddings and biases undecayed.

    Args:
        variant: a name from `attn_molecular.VARIANTS`.
        settings: fields of its configuration that differ, as `{neighbors: 12}`.
        forces: "gradient" or "direct".
        energy_weight: of the energy loss.
        force_weight: of the force loss.
        stress_weight: of the stress loss; 0 computes no stress.
        loss: "v2": energies per atom, forces averaged per structure first; or "v1".
        rotate: whether training structures are turned at random.
        weights: a potential to start from instead of `variant`: a shipped name, a file, a
            checkpoint. References are fitted anew. A direct model's backbone starts a gradient one.
        lr: highest learning rate.
        weight_decay: of matrices.
        warmup: share of the steps with a rising rate.
        floor: share of `lr` at the end.

    Raises:
        ValueError: no variant has that name, or a setting does not exist or fit.

    Source: Qu and Krishnapriyan, 2024, arXiv 2410.24169; the official code's recipes.
    """

    model: Potential
    monitor = "val/loss"
    mode = "min"

    def __init__(
        self,
        variant: str = "escaip_tiny",
        settings: dict[str, Any] | None = None,
        forces: Literal["gradient", "direct"] = "gradient",
        energy_weight: float = 10.0,
        force_weight: float = 20.0,
        stress_weight: float = 0.0,
        loss: Literal["v1", "v2"] = "v2",
        rotate: bool = False,
        weights: str | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-3,
        warmup: float = 0.02,
        floor: float = 0.01,
    ):
        super().__init__()
        changes = dict(settings or {})
        if changes.get("frequencies") is not None:
            changes["frequencies"] = tuple(changes["frequencies"])
        self.weights, self.forces, self.loss, self.rotate = weights, forces, loss, rotate
        self.energy_weight, self.force_weight = energy_weight, force_weight
        self.stress_weight = stress_weight
        if weights is None:
            if variant in VARIANTS and not hasattr(VARIANTS[variant], "smooth_order"):
                changes.pop("smooth_order", None)
            self._take(_untrained(create(variant, forces=forces, **changes)))
        self.lr, self.weight_decay, self.warmup, self.floor = lr, weight_decay, warmup, floor

    @property
    def potential(self) -> Potential:
        """The model."""
        return self.model

    def start_from(self, path: str) -> None:
        """Takes a potential of a file, whose configuration replaces `variant` and `settings`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: there is no potential in it, or it cannot start this one.
        """
        self._take(_start(load_potential(path), self.forces))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the network's configuration: the file that a run started from may be gone."""
        checkpoint["network"] = config_to_dict(self.model.network.config)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds what a file of weights was."""
        if not self._built:
            self._take(_untrained(config_from_dict(checkpoint["network"]).build()))

    def _take(self, potential: Potential) -> None:
        if self.stress_weight and not potential.network.gives_stress:
            raise ValueError("stress_weight is set, but a direct-force model gives no stress")
        self.model = potential

    @property
    def _built(self) -> bool:
        return "model" in self._modules

    def setup(self, stage: str) -> None:
        """Takes references, scale and elements from the training data.

        Raises:
            ValueError: gradient forces are to be trained with compiled layers.
        """
        callbacks: Any = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        compiles = any(isinstance(callback, Compile) for callback in callbacks)
        if stage == "fit" and compiles and self.forces == "gradient":
            raise ValueError(
                "--compile: gradient forces are trained by second derivatives, which compiled "
                "layers do not have; leave it out, or train --model.forces direct"
            )
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if stage != "fit" or not isinstance(data, StructureData) or not self._built:
            return  # what is resumed has them in its checkpoint
        potential = self.model
        before = set(potential.symbols)
        references, scale, numbers = data.statistics(potential.network.config.elements)
        if self.weights is not None:
            new = [chemical_symbols[z] for z in numbers if chemical_symbols[z] not in before]
            print(
                f"starting from {self.weights}: references fitted anew"
                + (f"; elements it has not seen: {', '.join(new)}" if new else ""),
                flush=True,
            )
            numbers = sorted({*numbers, *potential.known.nonzero()[:, 0].tolist()})
            references = torch.where(references == 0, potential.references, references)
        else:
            potential.scale.fill_(scale)
        potential.references.copy_(references)
        potential.known.fill_(False)
        potential.known[numbers] = True

    def on_train_start(self) -> None:
        """For a fine-tuning, says how good the start is."""
        if self.weights is None or self.trainer.global_step:
            return
        total: dict[str, list[float]] = {}
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        self.eval()
        for batch in data.val_dataloader():
            for name, (value, weight) in self._errors(batch.to(self.device)).items():
                kept = total.setdefault(name, [0.0, 0.0])
                kept[0] += float(value) * weight
                kept[1] += weight
        self.train()
        shown = ", ".join(f"{name} {a / max(b, 1):.4g}" for name, (a, b) in total.items())
        print(f"before the first step: {shown}", flush=True)

    def training_step(self, batch: Labelled, index: int) -> Tensor:
        """The weighted loss.

        Raises:
            ValueError: it is not finite.
        """
        if self.rotate:
            batch = batch.rotated()
        loss = self._losses(batch, create_graph=True)["loss"]
        if not bool(torch.isfinite(loss)):
            raise ValueError(
                f"the loss is not finite at step {self.trainer.global_step}: a lower --model.lr or "
                f"--trainer.gradient_clip_val helps; the last good checkpoint is kept"
            )
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Labelled, index: int) -> None:
        """Logs loss and errors."""
        self._measure("val", batch)

    def test_step(self, batch: Labelled, index: int) -> None:
        """Logs loss and errors."""
        self._measure("test", batch)

    def predict_step(self, batch: Labelled, index: int) -> dict[str, Tensor]:
        """Energy and forces of every structure."""
        with torch.inference_mode(False):
            batch = batch.clone()
            seen = self.model(batch.batch)
        return {"energy": seen.energy.detach(), "forces": seen.forces.detach()}

    def _losses(self, labelled: Labelled, create_graph: bool) -> dict[str, Tensor]:
        batch, potential = labelled.batch, self.model
        potential.check(batch.numbers)
        seen = potential.network(batch, stress=bool(self.stress_weight), create_graph=create_graph)
        dtype, scale = seen.energy.dtype, potential.scale
        atoms = potential.references[batch.numbers]
        offset = atoms.new_zeros(len(batch)).index_add(0, batch.system, atoms)
        energy = ((labelled.energy - offset) / scale).to(dtype)
        forces = (labelled.forces / scale).to(dtype)
        first = self.loss == "v1"
        losses = {
            "energy": energy_loss(seen.energy, energy, None if first else batch.counts),
            "forces": force_loss(seen.forces.to(dtype), forces, None if first else batch.system),
        }
        total = self.energy_weight * losses["energy"] + self.force_weight * losses["forces"]
        if seen.stress is not None:
            losses["stress"] = stress_loss(seen.stress, labelled.stress / scale)
            total = total + self.stress_weight * losses["stress"]
        losses["loss"] = total
        losses["seen"] = seen  # type: ignore[assignment]
        return losses

    def _errors(self, labelled: Labelled) -> dict[str, tuple[Tensor, float]]:
        """Errors in eV, eV/A and eV/A^3, with the number of labels each is a mean over."""
        with torch.inference_mode(False):
            labelled = labelled.clone()
            losses = self._losses(labelled, create_graph=False)
            seen: Any = losses["seen"]
            potential, batch = self.model, labelled.batch
            scale = potential.scale
            atoms = potential.references[batch.numbers]
            offset = atoms.new_zeros(len(batch)).index_add(0, batch.system, atoms)
            errors = {"loss": (losses["loss"].detach(), float(len(batch)))}
            has = labelled.energy.isfinite()
            if has.any():
                error = (scale * seen.energy.detach().double() + offset - labelled.energy)[
                    has
                ].abs()
                errors["energy_mae"] = error.mean(), float(has.sum())
                per_atom = error / batch.counts[has]
                errors["energy_mae_per_atom"] = per_atom.mean(), float(has.sum())
            has = labelled.forces.isfinite().all(1)
            if has.any():
                error = (scale * seen.forces.detach().double() - labelled.forces)[has]
                errors["forces_mae"] = error.abs().mean(), float(has.sum())
            has = labelled.stress.isfinite().all(-1).all(-1)
            if seen.stress is not None and has.any():
                error = (scale * seen.stress.detach() - labelled.stress)[has].abs()
                errors["stress_mae"] = error.mean(), float(has.sum())
        return errors

    def _measure(self, part: str, batch: Labelled) -> None:
        for name, (value, weight) in self._errors(batch).items():
            shown = name in ("loss", "forces_mae")
            self.log(
                f"{part}/{name}", value.float(), batch_size=int(weight), prog_bar=shown,
                on_step=False, on_epoch=True, sync_dist=True,
            )  # fmt: skip

    def configure_optimizers(self):
        """AdamW with the official schedule."""
        decayed, plain = [], []
        kept = (nn.Embedding, nn.RMSNorm, nn.LayerNorm)
        for module in self.model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad:
                    is_plain = isinstance(module, kept) or name == "bias"
                    (plain if is_plain else decayed).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        rising = round(self.warmup * steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(step, rising, steps, self.floor)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def samples(self, batch: Labelled) -> int:
        """Structures in a batch."""
        return len(batch)

    def figures(self, data: LightningDataModule) -> Iterable[Exhibit]:
        """Errors on test frames, predicted against true, and what the heads look at."""
        if isinstance(data, StructureData):
            yield from pictures.exhibits(self.model, data)


def _untrained(network: Network) -> Potential:
    return Potential(network, torch.zeros(network.config.elements))


def _start(potential: Potential, forces: str) -> Potential:
    network = potential.network
    if network.config.forces == forces:
        return potential
    if forces == "direct":
        raise ValueError("weights have gradient forces; a direct model cannot start from them")
    state, config = gradient_from_direct(network.state_dict(), network.config)
    fresh = config.build()
    fresh.load_state_dict(state)
    known = potential.known.nonzero()[:, 0].tolist()
    return Potential(fresh, potential.references, float(potential.scale), known, potential.card)
