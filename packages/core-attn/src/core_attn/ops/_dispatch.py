"""The one place that decides which backend computes an operator."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import torch

Call = TypeVar("Call", bound=tuple)
Result = TypeVar("Result")


class Plan(NamedTuple):
    """What a backend offers: the computation, and which of its kernels does it."""

    run: Callable[[], Any]
    kernel: str = ""


class Refusal(NamedTuple):
    """Why a backend does not offer; `able` is the plan of one that could but should not."""

    reason: str
    able: Plan | None = None


class Backend(NamedTuple):
    """One way to compute an operator.

    Args:
        name: as `use_backend` knows it.
        offer: takes the operator's call tuple; looks at shapes, dtypes and devices only, so that it
            can be traced.
        plain: whether it is made of torch's own operators, so that torch.func can transform it,
            and shows the weights to a call's `pattern`.
        parts: the operator that it computes with, if it does.
    """

    name: str
    offer: Callable[[Any], Plan | Refusal]
    plain: bool = False
    parts: "Operator | None" = None

    def reaches(self, name: str) -> bool:
        """Whether `name` is among the backends of its parts."""
        return self.parts is not None and self.parts.reaches(name)


def offer_of(
    run: Callable[[Any], Any],
    cannot: Callable[[Any], str | None] | None = None,
    reluctant: Callable[[Any], str | None] | None = None,
) -> Callable[[Any], Plan | Refusal]:
    """The offer of a backend that runs a call unless one of two functions gives a reason not to.

    Args:
        run: computes the operator.
        cannot: why it is not able to; None takes every call.
        reluctant: why another backend should, although it is able to.
    """

    def offer(call: Any) -> Plan | Refusal:
        if cannot is not None and (reason := cannot(call)) is not None:
            return Refusal(reason)
        plan = Plan(lambda: run(call))
        if reluctant is not None and (reason := reluctant(call)) is not None:
            return Refusal(reason, plan)
        return plan

    return offer


@dataclass(frozen=True)
class Choice:
    """One decision of the dispatcher: the backend taken and why the ones before it were not."""

    operator: str
    backend: str
    forced: bool
    refused: dict[str, str] = field(default_factory=dict)
    kernel: str = ""
    note: str = ""

    def __str__(self) -> str:
        why_not = "".join(f"\n  not {name}: {reason}" for name, reason in self.refused.items())
        how = "forced by use_backend" if self.forced else "the first backend that can"
        kernel = f", kernel {self.kernel}" if self.kernel else ""
        return f"{self.operator} -> {self.backend}{kernel} ({self.note or how}){why_not}"


class Explanation(list[Choice]):
    """The choices made during one call, printed one below the other."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))


class Preference(NamedTuple):
    """What one `use_backend` asks for."""

    backend: str
    operator: str | None
    strict: bool


_preferences: ContextVar[tuple[Preference, ...]] = ContextVar("core_attn.preferences", default=())
_logs: ContextVar[tuple[Explanation, ...]] = ContextVar("core_attn.logs", default=())
_operators: dict[str, "Operator"] = {}


class Operator(Generic[Call, Result]):
    """A function of a checked call tuple, with backends in the order in which they are asked.

    Args:
        name: as `use_backend` and `why` know it; a second operator of that name replaces the first.
        backends: the last one takes every call.
    """

    def __init__(self, name: str, *backends: Backend):
        self.name, self.backends = name, backends
        _operators[name] = self

    def without(self, *names: str) -> "Operator[Call, Result]":
        """The same operator with fewer backends, for one of these that computes with it."""
        fewer = object.__new__(type(self))
        fewer.name = self.name
        fewer.backends = tuple(backend for backend in self.backends if backend.name not in names)
        return fewer

    def reaches(self, name: str) -> bool:
        """Whether `name` is one of the backends, or of those that they compute with."""
        return any(backend.name == name or backend.reaches(name) for backend in self.backends)

    def __call__(self, call: Call) -> Result:
        """Runs `call` on the first backend that offers, or on the one that `use_backend` names.

        Autocast is off inside: what it asks for was done when the arguments were checked.

        Raises:
            ValueError: the backend asked for cannot run the call, or is not there.
        """
        kind = call[0].device.type
        if autocasts(kind):
            with torch.autocast(kind, enabled=False):
                return self._plan(call).run()
        return self._plan(call).run()

    def _plan(self, call: Call) -> Plan:
        wanted = preferred(self.name)
        backends, forced = self._candidates(wanted)
        only_plain = _only_plain(call)
        refused = {}
        for backend in backends:
            if only_plain is not None and not backend.plain:
                refused[backend.name] = only_plain
                continue
            offer = backend.offer(call)
            if isinstance(offer, Refusal):
                refused[backend.name] = offer.reason
                if not forced or offer.able is None:
                    continue
                del refused[backend.name]
                offer = offer.able
            if _watched():
                note_choice(Choice(self.name, backend.name, forced, refused, offer.kernel))
            return offer
        names = ", ".join(backend.name for backend in backends)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ValueError(f"{self.name}: no backend of ({names}) can run this call: {reasons}")

    def _candidates(self, wanted: Preference | None) -> tuple[tuple[Backend, ...], bool]:
        """The backends to ask, and whether they are asked by a preference."""
        if wanted is None:
            return self.backends, False
        named = tuple(backend for backend in self.backends if backend.name == wanted.backend)
        if not named:
            named = tuple(backend for backend in self.backends if backend.reaches(wanted.backend))
        if named:
            return named, True
        if wanted.strict or not any(x.reaches(wanted.backend) for x in _operators.values()):
            names = ", ".join(backend.name for backend in self.backends)
            raise ValueError(f"{self.name} has no backend {wanted.backend!r}; it has {names}")
        return self.backends, False


def _only_plain(call: Any) -> str | None:
    """Why only backends made of torch's operators can take a call, if so."""
    if getattr(call, "pattern", None) is not None:
        return "the weights are watched"
    if not torch.compiler.is_compiling() and under_transform():
        return "torch.func and forward-mode derivatives need torch's own operators"
    return None


def under_transform() -> bool:
    """Whether `torch.func` (grad, vmap, jvp, ...) or forward-mode derivatives are at work."""
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    return forward_mode or torch._C._are_functorch_transforms_active()


def constant_in_graphs(function: Callable[..., Result]) -> Callable[..., Result]:
    """What `torch.compiler.assume_constant_result` does, without its import of two seconds."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def follows_context(function: Callable[..., Result]) -> Callable[..., Result]:
    """For what reads a context variable: torch before 2.14 cannot trace it, so a graph keeps it."""
    return constant_in_graphs(function) if torch.__version__ < "2.14" else function


@follows_context
def preferred(operator: str) -> Preference | None:
    """What the surrounding `use_backend` asks of an operator; one that names it goes before."""
    general = None
    for preference in reversed(_preferences.get()):
        if preference.operator == operator:
            return preference
        if preference.operator is None and general is None:
            general = preference
    return general


@follows_context
def _watched() -> bool:
    """Whether a `why` surrounds the call."""
    return bool(_logs.get())


def note_choice(choice: Choice) -> None:
    """Tells every surrounding `why`."""
    for log in _logs.get():
        log.append(choice)


def autocasts(kind: str) -> bool:
    """Whether autocast is on for devices of a kind."""
    return _has_autocast(kind) and torch.is_autocast_enabled(kind)


@constant_in_graphs
def _has_autocast(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind)


@contextmanager
def use_backend(name: str, operator: str | None = None, *, strict: bool = False) -> Iterator[None]:
    """Asks for a backend, of every operator or of the one named, within the context.

    An operator that lacks it computes with one that has it where it can (`short_attention_block`
    with `short_attention`), and otherwise chooses as ever. The context holds for the current
    thread or task only.

    Args:
        name: a backend as `why` prints it: "reference", "sdpa", "triton", "short", "cpu", ...
        operator: the operator's name ("attention", "short_attention"); None for all.
        strict: whether operators that lack the backend refuse instead.

    Raises:
        ValueError: there is no such operator; inside, at a call that the backend cannot run, or if
            no operator has it.

    Example:
        >>> import torch, core_attn
        >>> q = torch.randn(1, 2, 5, 8)
        >>> with core_attn.use_backend("reference"):
        ...     print(core_attn.why(core_attn.attention, q, q, q))
        attention -> reference (forced by use_backend)
    """
    if operator is not None:
        _check_operator(operator)
    token = _preferences.set((*_preferences.get(), Preference(name, operator, strict)))
    try:
        yield
    finally:
        _preferences.reset(token)


def _check_operator(name: str) -> None:
    if name not in _operators:
        near = difflib.get_close_matches(name, _operators, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"there is no operator {name!r}{hint}; there are {', '.join(sorted(_operators))}"
        )


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
    token = _logs.set((*_logs.get(), log))
    try:
        call(*args, **kwargs)
    finally:
        _logs.reset(token)
    return log
