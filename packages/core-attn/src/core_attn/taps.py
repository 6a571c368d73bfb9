"""Places in a model where its attention can be watched and changed."""

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Protocol

import torch
from torch import Tensor, nn


class Tap(nn.Module):
    """An identity module on which forward hooks record or edit a tensor.

    It has no parameters and no buffers, so a state dict does not know of it.

    Example:
        >>> import torch
        >>> tap = Tap()
        >>> tap.listening
        False
        >>> handle = tap.register_forward_hook(lambda module, args, x: 2 * x)
        >>> tap.listening, tap(torch.ones(1))
        (True, tensor([2.]))
    """

    @property
    def listening(self) -> bool:
        """Whether any forward hook is registered; costly tensors are computed only then."""
        return len(self._forward_hooks) > 0

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` itself; the hooks see it."""
        tuple(self._forward_hooks)  # compiled code holds for the hooks that it was made with
        return x


class Reduction(Protocol):
    """What `record` keeps of the tensors that one tap sees."""

    def update(self, x: Tensor) -> None:
        """Takes one more tensor into account."""
        ...

    def compute(self) -> Tensor:
        """Returns what is kept of the tensors so far."""
        ...


class Last:
    """Keeps the latest tensor as it is, still differentiable."""

    def __init__(self):
        self.x: Tensor | None = None

    def update(self, x: Tensor) -> None:
        """Replaces what was kept."""
        self.x = x

    def compute(self) -> Tensor:
        """Returns the latest tensor."""
        if self.x is None:
            raise ValueError("nothing was recorded: the layer did not run")
        return self.x


class Mean:
    """Running mean over the first axis (the samples) of every batch seen, in float64.

    Args:
        of: what to average; a function of the tapped tensor that keeps its first axis.

    Example: the mean entropy of each head over a data set.
        >>> import torch
        >>> entropy = Mean(of=lambda pattern: torch.special.entr(pattern).sum(-1).mean(-1))
        >>> for _ in range(3):
        ...     entropy.update(torch.full((4, 2, 5, 5), 0.2))  # samples, heads, queries, keys
        >>> entropy.compute()
        tensor([1.6094, 1.6094])
    """

    def __init__(self, of: Callable[[Tensor], Tensor] | None = None):
        self.of = of
        self.total: Tensor | None = None
        self.count = 0
        self.dtype = torch.float32

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Adds the samples of `x`."""
        x = x if self.of is None else self.of(x)
        self.dtype = x.dtype
        total = x.sum(0, dtype=torch.float64)
        self.total = total if self.total is None else self.total + total
        self.count += len(x)

    def compute(self) -> Tensor:
        """Returns the mean over all samples, without their axis."""
        if self.total is None:
            raise ValueError("nothing was recorded: the layer did not run")
        return (self.total / self.count).to(self.dtype)


class Recording(Mapping[str, Tensor]):
    """What was recorded, by layer name."""

    def __init__(self, reductions: dict[str, Reduction]):
        self._reductions = reductions

    def __getitem__(self, layer: str) -> Tensor:
        return self._reductions[layer].compute()

    def __iter__(self) -> Iterator[str]:
        return iter(self._reductions)

    def __len__(self) -> int:
        return len(self._reductions)


@contextmanager
def record(
    model: nn.Module, tap: str, reduce: Callable[[], Reduction] = Last, *, layers: str = "*"
) -> Iterator[Recording]:
    """Records one kind of tap in every layer while the context is open.

    Args:
        model: any model whose attention layers own taps.
        tap: the taps' name, "pattern" (batch, heads, queries, keys; the weights after softmax)
            or "heads" (batch, tokens, heads, dim; the outputs before their projection).
        reduce: makes what is kept per layer: `Last` (the tensor itself), `Mean` (a running mean
            over samples, for whole data sets), or any `Reduction`.
        layers: which layers, as a shell pattern over their names.

    Yields:
        A mapping from layer name to tensor, filled as the model runs.

    Raises:
        ValueError: no layer matches.

    Example:
        >>> import torch, core_attn
        >>> layer = core_attn.MultiHeadAttention(8, heads=2)
        >>> with record(layer, "pattern") as seen:
        ...     _ = layer(torch.randn(1, 5, 8))
        >>> seen[""].shape
        torch.Size([1, 2, 5, 5])
    """
    found = {
        name.rpartition(".")[0]: module
        for name, module in _taps(model).items()
        if name.rpartition(".")[2] == tap and fnmatchcase(name.rpartition(".")[0], layers)
    }
    if not found:
        raise ValueError(
            f"no layer named {layers!r} has a tap {tap!r}; taps: {_listed(_taps(model))}"
        )
    reductions = {name: reduce() for name in found}
    with ExitStack() as hooks:
        hooks.callback(_compile_anew)
        for name, module in found.items():
            keep = reductions[name].update
            hook = module.register_forward_hook(lambda _module, _args, x, keep=keep: keep(x))
            hooks.callback(hook.remove)
        _compile_anew()
        yield Recording(reductions)


@contextmanager
def edit(model: nn.Module, edits: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Changes what passes through taps while the context is open.

    Args:
        model: any model whose attention layers own taps.
        edits: for each tap, by its full name or a shell pattern, a function of its tensor.

    Raises:
        TypeError: inside, an edit returns something else than a tensor.
        ValueError: a name fits no tap.

    Example: switch head 1 off.
        >>> import torch, core_attn
        >>> layer = core_attn.MultiHeadAttention(8, heads=2)
        >>> off = torch.tensor([1.0, 0.0])[:, None]
        >>> with edit(layer, {"heads": lambda x: x * off}):
        ...     y = layer(torch.randn(1, 5, 8))
    """
    taps = _taps(model)
    with ExitStack() as hooks:
        hooks.callback(_compile_anew)
        for pattern, change in edits.items():
            found = [module for name, module in taps.items() if fnmatchcase(name, pattern)]
            if not found:
                near = difflib.get_close_matches(pattern, taps, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"no tap is named {pattern!r}{hint}; taps: {_listed(taps)}")
            for module in found:
                hook = module.register_forward_hook(_editing(pattern, change))
                hooks.callback(hook.remove)
        _compile_anew()
        yield


def _compile_anew() -> None:
    """Before torch 2.14 compiled code does not see that hooks have come or gone."""
    if torch.__version__ < "2.14" and "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def _editing(pattern: str, change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def hook(_module: nn.Module, _args: tuple[Tensor], x: Tensor) -> Tensor:
        changed = change(x)
        if not isinstance(changed, Tensor):
            raise TypeError(
                f"the edit of {pattern!r} must return a tensor, got {type(changed).__name__}"
            )
        return changed

    return hook


def _taps(model: nn.Module) -> dict[str, Tap]:
    model = getattr(model, "_orig_mod", model)  # a compiled model wraps the one with the names
    return {name: module for name, module in model.named_modules() if isinstance(module, Tap)}


def _listed(taps: Mapping[str, Tap]) -> str:
    names = list(taps)
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "none"
