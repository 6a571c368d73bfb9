"""Click models by name."""

import dataclasses
from collections.abc import Callable

from ..layout import Layout
from .autoint import PRESETS, AutoInt, AutoIntConfig, BlockConfig, InteractingBlock
from .baselines import FM, LR, MLP, BaselineConfig, ClickModel, DCNv2, DeepFM, FinalMLP
from .embedding import FieldEmbedding

__all__ = [
    "create",
    "MODELS",
    "PRESETS",
    "AutoInt",
    "AutoIntConfig",
    "BlockConfig",
    "InteractingBlock",
    "FieldEmbedding",
    "BaselineConfig",
    "LR",
    "FM",
    "DeepFM",
    "DCNv2",
    "FinalMLP",
    "MLP",
]

BASELINES: dict[str, type[ClickModel]] = {
    "lr": LR,
    "fm": FM,
    "deepfm": DeepFM,
    "dcnv2": DCNv2,
    "finalmlp": FinalMLP,
    "mlp": MLP,
}
AUTOINTS = {
    "autoint": PRESETS["official"],
    "autoint_plus": PRESETS["official_plus"],
    "autoint_paper": PRESETS["paper"],
    "autoint_fuxictr": PRESETS["fuxictr"],
    "autoint_deepctr_torch": PRESETS["deepctr_torch"],
}
MODELS = (*AUTOINTS, *BASELINES)
Model = AutoInt | ClickModel


def create(
    name: str, layout: Layout, changes: dict | None = None, *, sparse: bool = False
) -> Model:
    """Builds a model of the table `MODELS`.

    Args:
        name: which.
        layout: the fields.
        changes: fields of its config (`AutoIntConfig` or `BaselineConfig`) to set otherwise.
        sparse: whether the tables' gradients are sparse, for the row-wise optimisers.

    Raises:
        ValueError: no such model, or no such field of its config.

    Example:
        >>> create("autoint", Layout.plain(3, rows=9), {"heads": 4}).config.heads
        4
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; there are {', '.join(MODELS)}")
    kinds: dict[str, Callable[..., Model]] = {**dict.fromkeys(AUTOINTS, AutoInt), **BASELINES}
    config = AUTOINTS.get(name, BaselineConfig())
    changes = changes or {}
    known = {field.name for field in dataclasses.fields(config)}
    if not set(changes) <= known:
        wrong = sorted(set(changes) - known)
        raise ValueError(f"{name} has no setting {wrong}; it has {sorted(known)}")
    return kinds[name](layout, dataclasses.replace(config, **changes), sparse=sparse)
