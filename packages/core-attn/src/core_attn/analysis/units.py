"""Where the hidden units of a model's feed-forward layers stand."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from .sites import Change

# (what makes the units, what reads them), by the names of the modules
LAYOUTS = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("gate", "up"), "down"),
    (("gate_up",), "down"),  # gates above units in one matrix
    (("up",), "down"),
    (("c_fc",), "c_proj"),
    (("fc1",), "fc2"),
)


@dataclass(frozen=True)
class UnitSite:
    """A feed-forward layer: its units are the inputs of `down`.

    Attributes:
        name: of the layer in its model.
        layer: the module.
        ups: the names of the linear layers that make the units.
        down: the name of the one that reads them.
    """

    name: str
    layer: nn.Module
    ups: tuple[str, ...]
    down: str

    @property
    def units(self) -> int:
        """How many there are."""
        reader = getattr(self.layer, self.down)
        return reader.in_features if isinstance(reader, nn.Linear) else reader.weight.shape[0]

    @contextmanager
    def on_units(self, change: Change) -> Iterator[None]:
        """While open, passes the units (…, units) to `change`; what it returns replaces them."""

        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            changed = change(args[0])
            return None if changed is None else (changed, *args[1:])

        handle = getattr(self.layer, self.down).register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def find_units(model: nn.Module) -> dict[str, UnitSite]:
    """The feed-forward layers of a model, by name, in the order of its modules.

    In a vision-language model those of the image encoder are left out.

    Example:
        >>> layer = nn.ModuleDict({"fc1": nn.Linear(4, 8), "fc2": nn.Linear(8, 4)})
        >>> layer.fc1, layer.fc2 = layer["fc1"], layer["fc2"]
        >>> find_units(nn.Sequential(layer))["0"].units
        8
    """
    found = {}
    for name, module in model.named_modules():
        for ups, down in LAYOUTS:
            parts = [getattr(module, part, None) for part in (*ups, down)]
            if all(isinstance(getattr(part, "weight", None), Tensor) for part in parts):
                if not {"vision_tower", "vision_model", "visual"} & set(name.split(".")):
                    found[name] = UnitSite(name, module, ups, down)
                break
    return found
