"""The one place that decides which backend computes an operator."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")
COMPOSED = "composed"  # the backend that computes an operator from others


class Backend(NamedTuple):
    """One way to compute an operator.

    Both functions take the operator's call tuple. `refuses` returns None where the backend can
    do the job, else the reason why not; it looks at shapes, dtypes and devices only, so that it
    can be traced.
    """

    name: str
    run: Callable[[Any], Any]
    refuses: Callable[[Any], str | None]


@dataclass(frozen=True)
class Choice:
    """One decision of the dispatcher: the backend taken and why the ones before it were not."""

    operator: str
    backend: str
    forced: bool
    refused: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        why_not = "".join(f"\n  not {name}: {reason}" for name, reason in self.refused.items())
        how = "forced by use_backend" if self.forced else "the first backend that can"
        return f"{self.operator} -> {self.backend} ({how}){why_not}"


class Explanation(list[Choice]):
    """The choices made during one call, printed one below the other."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))


_forced: dict[str | None, str] = {}
_logs: list[Explanation] = []


def dispatch(operator: str, backends: Sequence[Backend], call: Any) -> Any:
    """Runs `call` on the first of `backends` that can, or on the one forced by `use_backend`.

    Raises:
        ValueError: the forced backend does not exist for this operator or refuses the call.
    """
    forced = forced_backend(operator)
    if forced is not None:
        offered = [backend.name for backend in backends]
        if forced not in offered and COMPOSED in offered:
            forced = COMPOSED
    refused = {}
    for backend in backends:
        if forced is not None and backend.name != forced:
            continue
        reason = backend.refuses(call)
        if reason is None:
            if _logs:
                choice = Choice(operator, backend.name, forced is not None, refused)
                for log in _logs:
                    log.append(choice)
            return backend.run(call)
        refused[backend.name] = reason
    names = ", ".join(backend.name for backend in backends)
    if forced is not None and forced not in refused:
        raise ValueError(f"{operator} has no backend {forced!r}; it has {names}")
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
    raise ValueError(f"{operator}: no backend of ({forced or names}) can run this call: {reasons}")


def constant_in_graphs(function: Callable[..., Result]) -> Callable[..., Result]:
    """What `torch.compiler.assume_constant_result` does, without its import of two seconds."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def forced_backend(operator: str) -> str | None:
    """The backend that the surrounding `use_backend` asks for, if any."""
    return _forced.get(operator, _forced.get(None)) if _forced else None


@contextmanager
def use_backend(name: str, operator: str | None = None) -> Iterator[None]:
    """Forces a backend for every operator, or for the one named, within the context.

    An operator made of others, as `short_attention_block`, is composed where it lacks the backend,
    which then computes its parts.

    Args:
        name: a backend of the operators called inside: "reference", "sdpa", "triton", "cpu".
        operator: the operator's name ("attention", "short_attention"); None for all.

    Raises:
        ValueError: inside, at a call whose operator lacks the backend or where it refuses.

    Example:
        >>> import torch, core_attn
        >>> q = torch.randn(1, 2, 5, 8)
        >>> with core_attn.use_backend("reference"):
        ...     print(core_attn.why(core_attn.attention, q, q, q))
        attention -> reference (forced by use_backend)
    """
    before = _forced.copy()
    _forced[operator] = name
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(before)


def why(call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Explanation:
    """Runs `call(*args, **kwargs)` and says which backend computed each operator in it, and why.

    Args:
        call: an operator (`core_attn.attention`) or anything that calls operators, as a model.
        args: its positional arguments.
        kwargs: its named arguments.

    Returns:
        A list of `Choice`, in the order of the calls; printing it gives one line each.

    Example:
        >>> import torch, core_attn
        >>> q = torch.randn(1, 2, 5, 8)
        >>> choices = core_attn.why(core_attn.attention, q, q, q)
        >>> choices[0].backend
        'sdpa'
    """
    log = Explanation()
    _logs.append(log)
    try:
        call(*args, **kwargs)
    finally:
        _logs.remove(log)
    return log
