"""What the tasks share: a network built once its vocabulary is known, its tokenizer, AdamW."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from core_attn.training import Task
from core_attn.weights import copy_weights

from ..settings import configured
from ..tokens import Tokenizer, tokenizer_from


class Unbuilt(nn.Module):
    """Stands where the network will be, and remembers that it shall be compiled."""

    wanted: dict[str, Any] | None = None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keeps the wish."""
        self.wanted = kwargs


class TextTask(Task):
    """Base of the tasks on text; the network is built once the data's tokenizer is known.

    Args:
        variant: a name from `attn_language.VARIANTS`.
        settings: those of its configuration that differ; sizes that come from data are left out.
        optimizer: AdamW, or Adam without weight decay.
        lr: largest learning rate.
        final_lr: at the end, after a cosine.
        warmup: steps of rising rate.
        betas: of the moments.
        eps: of the optimizer.
        weight_decay: of matrices.
        weights: a file that a new run starts from.

    Raises:
        ValueError: the variant or a setting does not exist or fit, or a number is out of range.
    """

    tokenizer: Tokenizer | None = None
    reads: type[Any]

    def __init__(
        self,
        variant: str = "transformer",
        settings: dict[str, Any] | None = None,
        optimizer: Literal["adamw", "adam"] = "adamw",
        lr: float = 3e-3,
        final_lr: float = 0.0,
        warmup: int = 20,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        weights: str | None = None,
    ):
        super().__init__()
        self.variant, self.settings = variant, dict(settings or {})
        configured(variant, self.settings)  # so that a wrong name is told at once
        for name in ("vocab", "classes"):
            if name in self.settings:
                raise ValueError(f"{name} comes from the data: leave it out of settings")
        for name, value, fits, allowed in (
            ("lr", lr, lr > 0, "above 0"),
            ("final_lr", final_lr, final_lr >= 0, "at least 0"),
            ("warmup", warmup, warmup >= 0, "at least 0"),
            ("betas", betas, len(betas) == 2 and all(0 <= b < 1 for b in betas), "2 in [0, 1)"),
            ("eps", eps, eps >= 0, "at least 0"),
            ("weight_decay", weight_decay, weight_decay >= 0, "at least 0"),
        ):
            if not fits:
                raise ValueError(f"{name} must be {allowed}, got {value}")
        self.optimizer_name, self.lr, self.final_lr, self.warmup = optimizer, lr, final_lr, warmup
        self.betas, self.eps, self.weight_decay = tuple(betas), eps, weight_decay
        self.weights = weights
        self.model: nn.Module = Unbuilt()
        self._starts_from: str | None = None

    def sizes(self, data: Any) -> dict[str, Any]:
        """Settings that come from the data."""
        return {"vocab": data.tokenizer.vocab}

    def configure_model(self) -> None:
        """Builds the network for the data's tokenizer, or checks that it is the same.

        Raises:
            ValueError: the data are of another kind, or have another tokenizer than the network.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, self.reads):
            kinds = type(self).__name__, self.reads.__name__, type(data).__name__
            raise ValueError("{} reads {}, not {}".format(*kinds))
        if self.tokenizer is None:
            self._build(data.tokenizer, self.sizes(data))
        elif data.tokenizer.to_dict() != self.tokenizer.to_dict():
            raise ValueError(
                f"the data have another tokenizer, of {data.tokenizer.vocab} ids, than the model, "
                f"of {self.tokenizer.vocab}"
            )

    def _build(self, tokenizer: Tokenizer, sizes: Mapping[str, Any]) -> None:
        model = configured(self.variant, {**self.settings, **sizes}).build()
        if isinstance(self.model, Unbuilt) and self.model.wanted is not None:
            model.compile(**self.model.wanted)
        self.model, self.tokenizer, self._sizes = model, tokenizer, dict(sizes)
        if self._starts_from is not None:
            self._take(self._starts_from)
            self._starts_from = None

    def start_from(self, path: str) -> None:
        """Remembers the file until the network is there."""
        self._starts_from = path

    def _take(self, path: str) -> None:
        from pathlib import Path

        if Path(path).suffix == ".gguf" or Path(path, "config.json").is_file():
            from ..loading import load

            other, _ = load(path)
            if other.config.vocab != self._sizes.get("vocab"):
                raise ValueError(
                    f"weights {path} are for {other.config.vocab} token ids, the data's tokenizer "
                    f"has {self._sizes.get('vocab')}: give --data.tokenizer_file {path}"
                )
            print(f"{path}: {copy_weights(self.model, other.state_dict())}")
        else:
            super().start_from(path)

    def adapted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Official weights of the network's kind under its names; others as they are."""
        from ..official import adapted

        return adapted(state, self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the tokenizer and the sizes, from which the network is built again."""
        assert self.tokenizer is not None
        checkpoint["tokenizer"] = self.tokenizer.to_dict()
        checkpoint["sizes"] = self._sizes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the network where that is not done, or checks that its data are the same.

        Raises:
            ValueError: the network was built for data of other sizes, or another tokenizer.
        """
        tokenizer, sizes = tokenizer_from(checkpoint["tokenizer"]), checkpoint["sizes"]
        if self.tokenizer is None:
            self._build(tokenizer, sizes)
            return
        if self.tokenizer.to_dict() != tokenizer.to_dict():
            raise ValueError(
                f"the data have another tokenizer, of {self.tokenizer.vocab} ids, than the "
                f"checkpoint, of {tokenizer.vocab}"
            )
        ours, theirs = self.state_dict(), checkpoint["state_dict"]
        if any(name in theirs and x.shape != theirs[name].shape for name, x in ours.items()):
            raise ValueError(f"the checkpoint is for {sizes}, the data have {self._sizes}")

    def configure_optimizers(self):
        """AdamW, its rate rising, then falling as a cosine."""
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        others = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        kind = torch.optim.AdamW if self.optimizer_name == "adamw" else torch.optim.Adam
        if kind is torch.optim.Adam:
            groups = [{"params": [*matrices, *others], "weight_decay": 0.0}]
        optimizer = kind(groups, self.lr, self.betas, self.eps)  # type: ignore[arg-type]
        steps, floor = int(self.trainer.estimated_stepping_batches), self.final_lr / self.lr

        def rate(step: int) -> float:
            if step < self.warmup:
                return (step + 1) / self.warmup
            progress = (step - self.warmup) / max(1, steps - self.warmup)
            return floor + (1 - floor) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
