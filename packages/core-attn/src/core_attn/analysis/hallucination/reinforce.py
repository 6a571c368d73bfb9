"""VHR: heads that look at the picture, made louder while a caption is generated."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from .divergence import Rule, VisionLanguage

_OPEN = "_core_attn_reinforced"


class Reinforcement:
    """What `reinforce` chose for the prompt at hand.

    Attributes:
        chosen: for each layer, which heads of which sample are scaled; empty before the prompt.
    """

    def __init__(
        self,
        known: VisionLanguage,
        names: Sequence[str],
        alpha: float,
        rule: Rule,
        fixed: dict[str, Tensor],
        reinforce_text_stream: bool,
        calibrate_first: bool,
    ):
        self.chosen: dict[str, Bool[Tensor, "batch heads"]] = {}
        self._known, self._names, self._alpha, self._rule = known, names, alpha, rule
        self._fixed, self._echo, self._first = fixed, reinforce_text_stream, calibrate_first
        self._prompt: Tensor | None = None
        self._text: tuple[Tensor, Tensor] | None = None
        self._alone: dict[str, Tensor] = {}
        self._mode = "idle"

    def on_ids(self, _module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Notes a new prompt: token ids with image tokens on their way into the embedding."""
        ids = args[0]
        if self._mode != "idle" or not (ids == self._known.image_token).any():
            return
        old = self._prompt
        if old is None or ids.shape[0] != old.shape[0] or not ids[:, : old.shape[1]].equal(old):
            self._prompt, self._text, self.chosen = ids, None, {}

    def on_decoder(self, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before the prompt's pass through the decoder, runs the text alone."""
        if self._mode != "idle" or self.chosen:
            return
        if self._prompt is None:
            raise ValueError(
                f"no image token (id {self._known.image_token}) in the prompt: nothing to reinforce"
            )
        mask = kwargs.get("attention_mask")
        two_dimensional = isinstance(mask, Tensor) and mask.dim() == 2
        self._text = self._known.without_image(self._prompt, mask if two_dimensional else None)
        if self._fixed:
            self.chosen = dict(self._fixed)
            return
        self._read_text()
        if self._first:
            self._run("calibrate", lambda: self._known.decoder(*args, **_uncached(kwargs)))

    def on_heads(self, name: str, x: Tensor) -> Tensor | None:
        """Reads, selects or scales the heads of one layer."""
        if self._mode == "text":
            self._alone[name] = x[:, -1]
            return self._scaled(name, x) if self._echo and name in self.chosen else None
        if self._mode == "calibrate":
            self.chosen[name] = self._rule.select(x[:, -1], self._alone[name])
            return None
        if name not in self.chosen:
            if self._echo:
                self._read_text()
            self.chosen[name] = self._rule.select(x[:, -1], self._alone[name])
        return self._scaled(name, x)

    def _scaled(self, name: str, x: Tensor) -> Tensor:
        chosen = self.chosen[name].to(x.device)
        factor = torch.where(chosen, self._alpha, 1.0).to(x.dtype)
        if len(factor) != len(x):  # beams
            factor = factor.repeat_interleave(len(x) // len(factor), 0)
        return x * factor[:, None, :, None]

    def _read_text(self) -> None:
        assert self._text is not None
        ids, mask = self._text
        self._run(
            "text", lambda: self._known.decoder(input_ids=ids, attention_mask=mask, use_cache=False)
        )

    def _run(self, mode: str, call) -> None:
        before, self._mode = self._mode, mode
        try:
            with torch.no_grad():
                call()
        finally:
            self._mode = before


def _uncached(kwargs: dict) -> dict:
    dropped = ("past_key_values", "cache", "use_cache", "cache_position")
    return {k: v for k, v in kwargs.items() if k not in dropped} | {"use_cache": False}


@contextmanager
def reinforce(
    model: nn.Module,
    alpha: float = 2.0,
    layers: str | list[int] = "auto",
    *,
    rule: Rule = Rule(),  # noqa: B008 (frozen)
    heads: dict[int, Bool[Tensor, "batch heads"]] | None = None,
    reinforce_text_stream: bool = False,
    calibrate_first: bool = False,
) -> Iterator[Reinforcement]:
    """While open, `model.generate` multiplies the heads that look at the picture by `alpha`.

    At the prompt the text alone runs once more. Then each chosen layer compares its heads with
    and without the picture, at the last position and with earlier layers already reinforced,
    scales those that the rule selects at all positions, and keeps them for every token to come.

    Args:
        model: a Hugging Face vision-language model, in evaluation mode.
        alpha: the factor; 1 changes nothing.
        layers: numbers, or "auto": the second and the last 14 of 32, in proportion.
        rule: which heads are selected.
        heads: heads given instead of selected, by layer number, as for a control.
        reinforce_text_stream: whether the text alone is reinforced as well (one more text pass a
            layer); the paper does not say.
        calibrate_first: whether all layers select from one pass in which nothing is reinforced.

    Yields:
        What was chosen.

    Raises:
        ValueError: an unknown model, a layer out of range, an alpha that is not positive, a
            prompt without image tokens or padded on the right, or a model that is being
            reinforced already.

    Source: He et al., 2025, arXiv 2412.13949, algorithm 1.
    """
    if not (isinstance(alpha, (int, float)) and math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha must be a positive number, got {alpha!r}")
    known = VisionLanguage(model)
    if getattr(known.decoder, _OPEN, False):
        raise ValueError("this model is being reinforced already; close the other context first")
    numbers = list(heads) if heads is not None else layers
    names = known.layers(numbers)
    fixed = {} if heads is None else dict(zip(names, heads.values(), strict=True))
    for name, chosen in fixed.items():
        count = known.sites[name].num_heads
        if chosen.dim() != 2 or chosen.shape[1] != count:
            raise ValueError(f"{name} has {count} heads, those given are {tuple(chosen.shape)}")
    state = Reinforcement(known, names, alpha, rule, fixed, reinforce_text_stream, calibrate_first)
    embedding = model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    with ExitStack() as stack:
        setattr(known.decoder, _OPEN, True)
        stack.callback(delattr, known.decoder, _OPEN)
        if names:
            hooks = (
                embedding.register_forward_pre_hook(state.on_ids),
                known.decoder.register_forward_pre_hook(state.on_decoder, with_kwargs=True),
            )
            for hook in hooks:
                stack.callback(hook.remove)
        for name in names:
            change = lambda x, name=name: state.on_heads(name, x)  # noqa: E731
            stack.enter_context(known.sites[name].on_heads(change))
        yield state
