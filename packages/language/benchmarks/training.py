"""What the evidence of this package trains with: a text by characters, windows, AdamW."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attn_language.data.text import read_text
from attn_language.models import Decoder
from attn_language.models.centroids import update_centroids
from attn_language.tokens import Characters, Tokenizer
from core_attn import losses

CONTEXT, BATCH = 48, 16


class Corpus(NamedTuple):
    """Ids of the first nine tenths of a text and of the last, by characters."""

    train: Tensor
    test: Tensor
    tokenizer: Tokenizer


def corpus(file: str, tokenizer: Tokenizer | None = None) -> Corpus:
    """Reads a file."""
    text = read_text(file)
    tokenizer = tokenizer or Characters.of(text)
    ids = torch.tensor(tokenizer.encode(text))
    cut = len(ids) * 9 // 10
    return Corpus(ids[:cut], ids[cut:], tokenizer)


def windows(ids: Tensor, seed: int, context: int = CONTEXT) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of windows anywhere, and what follows each token."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(ids) - context - 1, (BATCH,), generator=generator)
        window = torch.stack([ids[s : s + context + 1] for s in starts])
        yield window[:, :-1], window[:, 1:]


def train(
    model: Decoder, batches: Iterator[tuple[Tensor, Tensor]], steps: int, rate: float = 4e-3
) -> float:
    """AdamW with one cycle, for so many steps; seconds of processor time. Targets -100 are free."""
    optimizer = torch.optim.AdamW(model.train().parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    begin = time.process_time()
    for _ in range(steps):
        ids, targets = next(batches)
        loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        (loss + sum(losses(model).values())).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        update_centroids(model)
    model.eval()
    return time.process_time() - begin


@torch.no_grad()
def accuracy(model: Decoder, ids: Tensor, context: int = CONTEXT) -> float:
    """The share of next tokens that are the likeliest ones."""
    rows = (len(ids) - 1) // context
    x, y = ids[: rows * context].view(rows, context), ids[1 : rows * context + 1].view(rows, -1)
    right = [(model(a).argmax(-1) == b) for a, b in zip(x.split(64), y.split(64), strict=True)]
    return torch.cat(right).float().mean().item()


def kept(model: Decoder, ids: Tensor) -> float:
    """MiB of activations that one batch of training keeps for its gradients."""
    held: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = model.train()(ids)
    model.eval()
    losses(model)
    del out
    return sum(held.values()) / 2**20
