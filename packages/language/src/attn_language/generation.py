"""Text from any language model, token by token, and how surprised a model is by a text."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .models import Decoder, State
from .models.decoder import check_ids


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Iterable[int] = (),
    seed: int | Sequence[int] = 0,
) -> list[list[int]]:
    """The tokens that follow each prompt.

    Prompts of different lengths are read side by side, each from its own beginning, so that a
    prompt gives in a batch what it gives alone. Where a model's context is full, its last half is
    read again as a new text.

    Args:
        model: in eval mode.
        prompts: ids, one or more each.
        max_tokens: how many follow each, at most.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: only so many of the likeliest are drawn from.
        top_p: only the likeliest that together reach this probability are drawn from.
        stop: ids that end a text; they are not returned.
        seed: of the draws of the first prompt, the next one's is one higher; or one for each.

    Raises:
        ValueError: an argument is out of range, a prompt is empty or longer than the context.

    Example:
        >>> from attn_language import create
        >>> model = create("spikegpt", vocab=11).eval()
        >>> [len(new) for new in generate(model, [[1, 2, 3], [4]], 5)]
        [5, 5]
    """
    out: list[list[int]] = [[] for _ in prompts]
    settings = Sampling(temperature, top_k, top_p, frozenset(stop))
    for row, token in _tokens(model, prompts, max_tokens, settings, seed):
        out[row].append(token)
    return out


def stream(
    model: Decoder,
    prompt: Sequence[int],
    max_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Iterable[int] = (),
    seed: int = 0,
) -> Iterator[int]:
    """The tokens that follow one prompt, as they come; arguments and errors as in `generate`."""
    settings = Sampling(temperature, top_k, top_p, frozenset(stop))
    return (token for _, token in _tokens(model, [prompt], max_tokens, settings, seed))


class Sampling(NamedTuple):
    """How a token is drawn."""

    temperature: float
    top_k: int | None
    top_p: float | None
    stop: frozenset[int]

    def check(self) -> None:
        """Refuses values out of range."""
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature must be a number from 0 up, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")

    def draw(self, logits: Tensor, generator: torch.Generator) -> int:
        """One token from logits (vocab,)."""
        if self.temperature == 0 or self.top_k == 1:
            return int(logits.argmax())
        values, ids = (logits.double() / self.temperature).sort(descending=True, stable=True)
        p = values.softmax(-1)
        if self.top_k is not None:
            p, ids = p[: self.top_k], ids[: self.top_k]
            p = p / p.sum()
        if self.top_p is not None:
            before = p.cumsum(-1) - p
            p = p.where(before < self.top_p, 0.0)
        return int(ids[torch.multinomial(p.cpu(), 1, generator=generator)])


def _tokens(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    settings: Sampling,
    seed: int | Sequence[int],
) -> Iterator[tuple[int, int]]:
    """Pairs of a prompt's number and its next token, until all texts have ended.

    What is out of range is told at once, not with the first token.
    """
    settings.check()
    if max_tokens < 0:
        raise ValueError(f"max_tokens must be at least 0, got {max_tokens}")
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt must have at least one token")
    limit = model.config.reach
    longest = max(map(len, prompts))
    if limit is not None and longest > limit:
        raise ValueError(f"prompt of {longest} tokens exceeds the context of {limit}")
    seeds = [seed + row for row in range(len(prompts))] if isinstance(seed, int) else list(seed)
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
    for number in seeds:
        if not 0 <= number < 2**63:
            raise ValueError(f"seed must be in [0, 2^63), got {number}")
    return _drawn(model, prompts, max_tokens, settings, seeds)


@torch.no_grad()
def _drawn(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    settings: Sampling,
    seeds: Sequence[int],
) -> Iterator[tuple[int, int]]:
    """What `_tokens` promises, its arguments checked."""
    limit, device = model.config.reach, next(model.parameters()).device
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    texts = [list(prompt) for prompt in prompts]
    ends = [len(prompt) + max_tokens for prompt in prompts]
    active = [max_tokens > 0] * len(prompts)
    state: State | None = None
    read, new = 0, min(map(len, prompts))
    while any(active):
        if limit is not None and state is not None and state.position + new > limit:
            state, new = None, max(limit // 2, 1)  # the last half again
        upto = read + new if state is not None or read == 0 else read + 1
        piece = torch.tensor([text[upto - new : upto] for text in texts], device=device)
        x, state = model.advance(piece, state)
        logits = model.logits(x[:, -1:])
        read, new = upto, 1
        for row, text in enumerate(texts):
            if len(text) > read:
                continue
            if not active[row]:
                text.append(text[-1])  # keeps step with the others; nobody reads it
                continue
            token = settings.draw(logits[row, -1].float(), generators[row])
            text.append(token)
            if token in settings.stop:
                active[row] = False
                continue
            yield row, token
            active[row] = len(text) < ends[row]


class Perplexity(NamedTuple):
    """How well a model predicts a text.

    Attributes:
        nats: mean negative log likelihood of a token.
        tokens: how many were scored: all but the first.
        bits_per_byte: of the text; None where its bytes are not known.
    """

    nats: float
    tokens: int
    bits_per_byte: float | None

    @property
    def perplexity(self) -> float:
        """exp(nats)."""
        return math.exp(self.nats)


@torch.no_grad()
def perplexity(
    model: Decoder,
    ids: Sequence[int] | Tensor,
    *,
    context: int | None = None,
    stride: int | None = None,
    text_bytes: int | None = None,
    batch_size: int = 16,
) -> Perplexity:
    """Scores every token of a text but the first exactly once.

    Windows of `context` tokens are read, each `stride` further on; a window scores what the ones
    before have not, the last one included, so that a token has at least context - stride before
    it, and one token always.

    Args:
        model: in eval mode.
        ids: the text.
        context: tokens read at once; the model's own by default.
        stride: from window to window; `context` by default, the fastest.
        text_bytes: of the text, for bits per byte.
        batch_size: windows read side by side.

    Raises:
        TypeError: ids are not integers.
        ValueError: the text is shorter than two tokens, or an argument or id is out of range.

    Example:
        >>> from attn_language import create
        >>> model = create("transformer", vocab=7).eval()
        >>> perplexity(model, [1, 2, 3, 4, 5], context=2).tokens
        4
    """
    context = model.config.context if context is None else context
    stride = context if stride is None else stride
    if context < 1 or not 1 <= stride <= context:
        raise ValueError(f"stride must be in [1, context], got {stride} of {context}")
    tokens = len(ids) - 1
    if tokens < 1:
        raise ValueError(f"a text of {len(ids)} token(s) has nothing to score")
    ids = torch.as_tensor(ids)
    check_ids(ids, model.config.vocab)  # the last one, too, which no window reads
    context = min(context, tokens)
    stride = min(stride, context)
    starts, scored = [0], [context]
    while sum(scored) < tokens:
        start = min(starts[-1] + stride, tokens - context)
        scored.append(start + context - sum(scored))
        starts.append(start)
    device, total = next(model.parameters()).device, 0.0
    for first in range(0, len(starts), batch_size):
        chosen = starts[first : first + batch_size]
        windows = torch.stack([ids[s : s + context + 1] for s in chosen]).to(device)
        losses = F.cross_entropy(
            model(windows[:, :-1]).float().transpose(1, 2), windows[:, 1:].long(), reduction="none"
        )
        for loss, count in zip(losses, scored[first : first + batch_size], strict=True):
            total += loss[context - count :].double().sum().item()
    bits = None if text_bytes is None else total / math.log(2) / text_bytes
    return Perplexity(total / tokens, tokens, bits)
