"""Where a model attends: one view of our layers, of timm's and of Hugging Face decoders'."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..layers import AttentionLayer
from ..taps import Last, Recording, Reduction

PROJECTIONS = ("proj", "o_proj", "out_proj", "c_proj", "dense", "output", "out")
Change = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class Site:
    """One attention layer of a model, with its heads and its weights in reach.

    Attributes:
        name: of the layer in its model.
        layer: the module.
        projection: what maps the concatenated heads to the residual stream; None where the layer
            has no single one.
    """

    name: str
    layer: Any  # of whatever class its library gives it
    projection: nn.Module | None

    @property
    def num_heads(self) -> int:
        """Query heads.

        Raises:
            ValueError: the layer does not tell.
        """
        for name in ("num_heads", "num_attention_heads"):
            if isinstance(count := getattr(self.layer, name, None), int):
                return count
        if isinstance(dim := getattr(self.layer, "head_dim", None), int) and self.projection:
            return self.output_weight.shape[1] // dim
        raise ValueError(f"{self.name}: {type(self.layer).__name__} does not tell its heads")

    @property
    def output_weight(self) -> Float[Tensor, "dim width"]:
        """The projection's weight, as `nn.Linear` stores it; `width` is heads times head size.

        Raises:
            ValueError: the layer has no single output projection.
        """
        weight = getattr(self.projection, "weight", None)
        if not isinstance(weight, Tensor):
            raise ValueError(
                f"{self.name}: {type(self.layer).__name__} has no output projection; looked for "
                f"{', '.join(PROJECTIONS)}"
            )
        return weight if isinstance(self.projection, nn.Linear) else weight.T  # GPT-2: Conv1D

    def on_heads(self, change: Change) -> AbstractContextManager[None]:
        """While open, passes the heads (batch, tokens, heads, dim) to `change`.

        What it returns takes their place; None leaves them.
        """
        raise NotImplementedError

    def on_pattern(self, change: Change) -> AbstractContextManager[None]:
        """While open, passes the weights (batch, heads, queries, keys) to `change`.

        What it returns takes their place; None leaves them.
        """
        raise NotImplementedError


class TappedSite(Site):
    """A layer with taps: every model of this project."""

    @contextmanager
    def on_heads(self, change: Change) -> Iterator[None]:
        """By the tap `heads`."""
        with _hooked(self.layer.heads, change):
            yield

    @contextmanager
    def on_pattern(self, change: Change) -> Iterator[None]:
        """By the tap `pattern`."""
        with _hooked(self.layer.pattern, change):
            yield


class _ProjectedSite(Site):
    """A layer whose concatenated heads enter `projection`."""

    @contextmanager
    def on_heads(self, change: Change) -> Iterator[None]:
        """By the input of the projection."""
        heads = self.num_heads

        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            changed = change(args[0].unflatten(-1, (heads, -1)))
            return None if changed is None else (changed.flatten(-2), *args[1:])

        assert self.projection is not None
        handle = self.projection.register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()


class TimmSite(_ProjectedSite):
    """An attention layer of timm: `qkv`, `attn_drop`, `proj`, and a switch to its fused kernel."""

    @contextmanager
    def on_pattern(self, change: Change) -> Iterator[None]:
        """By the dropout after the softmax, with the fused kernel off meanwhile."""
        fused = self.layer.fused_attn
        self.layer.fused_attn = False
        try:
            with _hooked(self.layer.attn_drop, change):
                yield
        finally:
            self.layer.fused_attn = fused


class DecoderSite(_ProjectedSite):
    """An attention layer of a Hugging Face decoder (Llama, Qwen, Phi, GPT-2 and their kind)."""

    @contextmanager
    def on_pattern(self, change: Change) -> Iterator[None]:
        """By the weights that the eager implementation returns beside its output; read only."""
        config = self.layer.config
        before = config._attn_implementation

        def hook(_module: nn.Module, _args: tuple, output: tuple) -> None:
            if change(output[1]) is not None:
                raise ValueError(f"{self.name}: the weights of this layer can be read, not edited")

        handle = self.layer.register_forward_hook(hook)
        config._attn_implementation = "eager"
        try:
            yield
        finally:
            config._attn_implementation = before
            handle.remove()


@contextmanager
def _hooked(module: nn.Module, change: Change) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _m, _args, x, change=change: change(x))
    try:
        yield
    finally:
        handle.remove()


class Sites(Mapping[str, Site]):
    """The attention layers of a model in the order of its modules, by name.

    Args:
        found: the layers.

    Example:
        >>> import torch, core_attn
        >>> sites = find_sites(core_attn.MultiHeadAttention(8, heads=2))
        >>> sites[""].num_heads
        2
    """

    def __init__(self, found: Mapping[str, Site]):
        self._found = dict(found)

    def __getitem__(self, name: str) -> Site:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def matching(self, layers: str) -> "Sites":
        """Those whose name fits a shell pattern.

        Raises:
            ValueError: none does.
        """
        kept = {name: site for name, site in self.items() if fnmatchcase(name, layers)}
        if not kept:
            raise ValueError(f"no attention layer is named {layers!r}; layers: {', '.join(self)}")
        return Sites(kept)

    @contextmanager
    def record(
        self, tap: str, reduce: Callable[[], Reduction] = Last, *, layers: str = "*"
    ) -> Iterator[Recording]:
        """As `core_attn.record`, for every model that has sites.

        Raises:
            ValueError: there is no such tap, or no layer's name fits.
        """
        _check_tap(tap)
        chosen = self.matching(layers)
        reductions = {name: reduce() for name in chosen}
        with ExitStack() as stack:
            for name, site in chosen.items():
                stack.enter_context(_on(site, tap)(reductions[name].update))
            yield Recording(reductions)

    @contextmanager
    def edit(self, tap: str, changes: Mapping[str, Change]) -> Iterator[None]:
        """As `core_attn.edit`: for each layer's name, what to do with what passes its tap.

        Raises:
            ValueError: there is no such tap, or no such layer.
        """
        _check_tap(tap)
        if unknown := [name for name in changes if name not in self]:
            raise ValueError(f"no layer is named {unknown[0]!r}; layers: {', '.join(self)}")
        with ExitStack() as stack:
            for name, change in changes.items():
                stack.enter_context(_on(self[name], tap)(change))
            yield


def _check_tap(tap: str) -> None:
    if tap not in ("heads", "pattern"):
        raise ValueError(f"tap must be 'heads' or 'pattern', got {tap!r}")


def _on(site: Site, tap: str) -> Callable[[Change], AbstractContextManager[None]]:
    return site.on_heads if tap == "heads" else site.on_pattern


def find_sites(model: nn.Module) -> Sites:
    """Finds the attention layers of a model.

    Known are layers with taps, timm's `Attention` and the decoders of Hugging Face. In a
    vision-language model the layers of its language model are taken, not those of its image
    encoder.

    Raises:
        ValueError: there are none; the message says what was looked for.

    Example:
        >>> import torch, core_attn
        >>> list(find_sites(torch.nn.Sequential(core_attn.MultiHeadAttention(8, heads=2))))
        ['0']
    """
    model = getattr(model, "_orig_mod", model)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, AttentionLayer):
            found[name] = TappedSite(name, module, _projection(module))
        elif hasattr(module, "fused_attn") and hasattr(module, "attn_drop"):
            if (projection := _projection(module)) is not None:
                found[name] = TimmSite(name, module, projection)
        elif hasattr(module, "head_dim") and hasattr(getattr(module, "config", None), "model_type"):
            if not _sees_images(name) and (projection := _projection(module)) is not None:
                found[name] = DecoderSite(name, module, projection)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no attention layer known here; looked for "
            "core_attn.AttentionLayer, timm's attention (fused_attn, attn_drop, proj) and Hugging "
            f"Face decoder layers (head_dim and one of {', '.join(PROJECTIONS)})"
        )
    return Sites(found)


def _projection(layer: nn.Module) -> nn.Module | None:
    for name in PROJECTIONS:
        module = getattr(layer, name, None)
        if isinstance(getattr(module, "weight", None), Tensor):
            return module
    return None


def _sees_images(name: str) -> bool:
    parts = name.split(".")
    return any(part in ("vision_tower", "vision_model", "visual", "qformer") for part in parts)
