"""The command `convert`: other models out of checkpoints, and checkpoints out of models."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning
import torch
from torch import Tensor

from core_attn.training import opened
from core_attn.training.checkpoint import AtomicCheckpointIO

from . import fusion
from .data import TextData
from .loading import load
from .models import Decoder
from .settings import name_of, plain
from .tokens import Tokenizer
from .upcycling import upcycle

TOPICS = "attn_language.data.Topics"


def convert(
    kind: Literal["dha", "bam", "btx"],
    sources: Sequence[str],
    out: str,
    *,
    budget: float = 0.5,
    steps: int = 0,
    kv: Literal["expert", "shared"] = "expert",
) -> Iterator[str]:
    """Makes the model, writes it, and says what was done.

    Raises:
        ValueError: the sources do not fit each other or the kind.
    """
    if Path(out).suffix != ".ckpt":
        raise ValueError(f"out must be a file *.ckpt, got {out}")
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    if kind == "dha" and len(sources) != 1:
        raise ValueError(f"dha takes one checkpoint, got {len(sources)}")
    if steps and Path(sources[0]).suffix != ".ckpt":
        raise ValueError(
            f"steps need the training text, which {sources[0]} does not name: use steps 0"
        )
    if kind != "dha" and len(sources) < 2:
        raise ValueError(f"a mixture needs 2 checkpoints or more, got {len(sources)}")
    loaded = [load(source) for source in sources]
    tokenizer = loaded[0][1]
    if tokenizer is None:
        raise ValueError(f"{sources[0]} holds no tokenizer")
    for source, (_, other) in zip(sources, loaded, strict=True):
        if other is None or other.to_dict() != tokenizer.to_dict():
            raise ValueError(f"{source} has another tokenizer than {sources[0]}")
    if kind == "dha":
        model = loaded[0][0]
        groups = fusion.planned(model, budget)
        for layer, (keys, values) in enumerate(zip(*groups, strict=True)):
            yield f"layer {layer}: keys in groups {keys}, values in groups {values}"
        if steps:
            batches = training_batches(sources[0])
            model, progress = fusion.fuse(model, groups, batches, steps=steps)
            yield f"fusion loss {progress.fusion[0]:.3f} to {progress.fusion[-1]:.3g}"
        else:
            model = fusion.averaged(model, groups)
        yield f"{groups.total} key and value heads of {model.config.depth} layers are left"
    else:
        experts = [model for model, _ in loaded]
        model, report = upcycle(experts, "single" if kind == "btx" else kv)
        yield from report
    topics = {"tokenizer_file": str(Path(out).absolute())}  # its own: the topics know characters
    data = _data_of(sources[0]) or {"class_path": TOPICS, "init_args": topics}
    save(model, tokenizer, out, data=data)
    yield f"written: {out}"


def save(
    model: Decoder, tokenizer: Tokenizer, path: str | Path, *, data: dict[str, Any] | None = None
) -> None:
    """Writes a model as a checkpoint that all commands open.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        path: the file.
        data: the configuration of the data module that it is tested on; the topics by default.
    """
    config = model.config
    sizes = {"vocab": config.vocab, "context": config.context}
    settings = {key: value for key, value in plain(config).items() if key not in sizes}
    content = {
        "state_dict": {f"model.{key}": x for key, x in model.state_dict().items()},
        "tokenizer": tokenizer.to_dict(),
        "sizes": sizes,
        "recipe": "converted",
        "package": "attn_language",
        "pytorch-lightning_version": pytorch_lightning.__version__,
        "epoch": 0,
        "global_step": 0,
        "config": {
            "seed_everything": 0,
            "model": {
                "class_path": "attn_language.tasks.LanguageModel",
                "init_args": {"variant": name_of(config), "settings": settings},
            },
            "data": data or {"class_path": TOPICS, "init_args": {}},
            "trainer": {"precision": "32-true"},
        },
    }
    AtomicCheckpointIO().save_checkpoint(content, path)


def training_batches(ckpt: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows of a checkpoint's own training text and what follows, epoch after epoch."""
    data = opened(ckpt, "fit").data
    assert isinstance(data, TextData)
    epoch = 0
    while True:
        batches = data.train_dataloader()
        batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in batches:
            if int(batch.lengths.min()) == batch.ids.shape[1]:
                yield batch.ids[:, :-1], batch.ids[:, 1:]
        epoch += 1


def _data_of(source: str) -> dict[str, Any] | None:
    if Path(source).suffix != ".ckpt":
        return None
    return torch.load(source, map_location="cpu", weights_only=True, mmap=True)["config"]["data"]


def cache_bytes(model: Decoder, tokens: int) -> int:
    """Bytes of keys and values that a state holds after so many tokens of one text."""
    ids = torch.zeros(1, tokens, dtype=torch.long)
    with torch.no_grad():
        _, state = model.step(ids)
    total = 0
    for mixing, _ in state.blocks:
        for kept in mixing:
            total += math.prod(kept.x.shape) * kept.x.element_size()
    return total
