"""What is written is run: a pytest plugin that a package adopts by one line of its conftest.py.

    pytest_plugins = ["core_attn.testing.plugin"]

- Annotations with shapes (jaxtyping) are checked by beartype, in the packages imported afterwards,
  so that a conftest.py imports its package inside its fixtures; a test that gives what they
  exclude, to see it refused, is marked `@pytest.mark.refuses`, and one that traces what its checks
  would break, `@pytest.mark.traces`.
- Warnings are errors, but for those in `FORCED`, that third parties raise about each other.
- Memory that nothing has written holds NaN (or the largest integer), not what was there before.
"""

import inspect
import random
import typing
from collections.abc import Callable
from importlib.metadata import distributions
from importlib.util import find_spec
from typing import Any

import jaxtyping
import pytest
import torch

# Warnings of others that no change here could avoid.
FORCED = (
    "ignore::DeprecationWarning:matplotlib",  # reads tensors in the way NumPy 1 did
    "ignore:.*__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:.*treespec, LeafSpec.*",  # Lightning with torch 2.14
    "ignore:.*was deprecated in v4.* and will be removed in v5",  # Lightning with jsonargparse
    "ignore:Your `IterableDataset` has `__len__` defined:UserWarning",  # Lightning of any stream
    "ignore:.*torch.jit.*:DeprecationWarning",
    "ignore:.*is deprecated.*:DeprecationWarning:torch",
    "ignore::DeprecationWarning:tensorboard",
    "ignore::DeprecationWarning:google",
    "ignore::FutureWarning:torch",
    "ignore::UserWarning:torch",
    "ignore::DeprecationWarning:onnxscript",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
PICKS = random.Random(0)  # of the checks: the global generator is the program's
LIGHTNING = "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"


def pytest_configure(config: pytest.Config) -> None:
    """Has annotations checked from now on, and makes warnings errors."""
    _keep_kernels_bare()
    _keep_other_functions_bare()
    packages = [x.name.replace("-", "_") for x in distributions() if x.name.startswith("attn-")]
    jaxtyping.install_import_hook(["core_attn", *packages], f"sys.modules[{__name__!r}].shapes")
    config.addinivalue_line("markers", "refuses: gives arguments that their annotations exclude")
    config.addinivalue_line("markers", "traces: compiles or exports functions as they are written")
    config.addinivalue_line("filterwarnings", "error")
    for line in (*FORCED, LIGHTNING) if find_spec("pytorch_lightning") else FORCED:
        config.addinivalue_line("filterwarnings", line)


def _keep_other_functions_bare() -> None:
    """Has jaxtyping wrap functions that have shapes only: a compiler stumbles over its wrappers.

    Nor classes, for the same reason, nor generators, that `torch.no_grad` would know no more.
    """
    jaxtyped = jaxtyping.jaxtyped

    def with_shapes(function: Any = None, **options: Any) -> Any:
        if function is not None or "typechecker" not in options:
            return jaxtyped(function, **options)  # type: ignore
        wrap = jaxtyped(**options)  # type: ignore

        def with_typechecker(x: Any) -> Any:
            bare = isinstance(x, type) or inspect.isgeneratorfunction(x)
            return x if bare or not _shapes_of(x) else wrap(x)

        return with_typechecker

    jaxtyping.jaxtyped = with_shapes


def _keep_kernels_bare() -> None:
    """Has triton compile functions as written: a checked one has the globals of its wrapper."""
    try:
        import triton
    except ImportError:
        return
    compiled = triton.jit
    triton.jit = lambda function=None, **options: (
        compiled(**options) if function is None else compiled(inspect.unwrap(function), **options)
    )


@pytest.fixture(autouse=True)
def empty_memory_is_nan() -> typing.Iterator[None]:
    """Fills new memory while a test runs; torch does so in its deterministic mode."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(autouse=True)
def annotations_are_checked(request: pytest.FixtureRequest) -> typing.Iterator[None]:
    """Lets a test marked `refuses` or `traces` reach functions as they are written."""
    bare = any(request.node.get_closest_marker(name) for name in ("refuses", "traces"))
    jaxtyping.config.update("jaxtyping_disable", bare)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks the arguments and results of a function whose annotations have shapes; no others.

    Example:
        >>> from jaxtyping import Float
        >>> from torch import Tensor
        >>> @jaxtyping.jaxtyped(typechecker=shapes)
        ... def total(x: Float[Tensor, "rows columns"], name: "Unknown" = None):
        ...     return x.sum()
        >>> total(torch.ones(2, 3))
        tensor(6.)
        >>> try:
        ...     total(torch.ones(2))
        ... except jaxtyping.TypeCheckError:
        ...     print("refused")
        refused
    """
    from beartype import beartype

    hints, kept = dict(getattr(function, "__annotations__", {})), _shapes_of(function)
    if not kept:
        return function
    function.__annotations__ = kept
    checked = beartype(function)
    function.__annotations__ = hints
    checked.__annotations__ = hints
    defaults = checked.__kwdefaults__ or {}
    for name in defaults:  # it picks the item of a list that it checks
        if name.endswith("getrandbits"):
            defaults[name] = PICKS.getrandbits
    return checked


def _shapes_of(annotated: Any) -> dict[str, Any]:
    """The annotations that have shapes."""
    hints = getattr(annotated, "__annotations__", {})
    return {name: hint for name, hint in hints.items() if _has_shape(hint)}


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_has_shape, typing.get_args(hint)))
