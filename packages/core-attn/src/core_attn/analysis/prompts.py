"""Prompts, checked before a model runs them."""

from collections.abc import Sequence

from torch import Tensor, nn


def checked(
    model: nn.Module, prompts: Sequence[Tensor], *, least: int = 1, called: str = "prompt"
) -> list[Tensor]:
    """Token ids (1, tokens) of every prompt.

    Args:
        model: that shall run them.
        prompts: token ids, (tokens,) or (1, tokens), without padding.
        least: tokens that each must have.
        called: what messages call one.

    Raises:
        TypeError: a prompt is no tensor of integers.
        ValueError: there are none, or one is several sequences, too short, longer than the context,
            or has ids outside of the vocabulary.

    Example:
        >>> import torch
        >>> checked(nn.Identity(), [torch.tensor([3, 1])])
        [tensor([[3, 1]])]
    """
    if not len(prompts):
        raise ValueError(f"no {called}s: at least one is needed")
    vocabulary, context = _sizes(model)
    found = []
    for number, ids in enumerate(prompts):
        if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.is_complex():
            kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
            raise TypeError(
                f"{called} {number} must be token ids, a tensor of integers; got {kind}"
            )
        if ids.dim() not in (1, 2) or (ids.dim() == 2 and len(ids) != 1):
            raise ValueError(
                f"{called} {number} must be one sequence, (tokens,) or (1, tokens), got shape "
                f"{tuple(ids.shape)}"
            )
        tokens = ids.shape[-1]
        if tokens < least:
            raise ValueError(f"{called} {number} has {tokens} tokens; at least {least} are needed")
        if context is not None and tokens > context:
            raise ValueError(f"{called} {number} has {tokens} tokens, the context holds {context}")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or (vocabulary is not None and high >= vocabulary):
            known = "are not negative" if vocabulary is None else f"go from 0 to {vocabulary - 1}"
            raise ValueError(f"{called} {number} has the id {min(low, 0) or high}; ids {known}")
        found.append(ids.reshape(1, -1))
    return found


def _sizes(model: nn.Module) -> tuple[int | None, int | None]:
    """Ids that a model knows, and tokens that it takes; None where it does not say."""
    config = getattr(model, "config", None)

    def first(*names: str) -> int | None:
        sizes = (getattr(config, name, None) for name in names)
        return next((size for size in sizes if isinstance(size, int) and size), None)

    vocabulary = first("vocab_size", "vocab")
    return vocabulary, first("max_position_embeddings", "n_positions", "limit")
