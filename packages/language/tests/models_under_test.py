"""Small models of every kind, and texts for them."""

import torch

from attn_language import VARIANTS, create
from attn_language.models import DecoderConfig

SIZES = {"vocab": 23, "dim": 16, "depth": 2, "context": 64}
SMALL = {
    "grassmann": {"reduced": 4, "hidden": 32, "offsets": (1, 2, 5)},
    "routing": {"window": 6, "clusters": 3, "local_window": 4},
    "uoe": {"heads": 4},
    "rcmha": {"hidden": 32, "max_distance": 64},
}
BIG = ("216m", "13m", "18m")
DECODERS = [
    name
    for name, config in VARIANTS.items()
    if isinstance(config, DecoderConfig) and not name.endswith(BIG)
]
EXACT = [name for name in DECODERS if VARIANTS[name].exact_steps]


def small(name, **changes):
    """A small model with weights that are not 0, so that every part has a say."""
    family = {"rmha": "rcmha", "mdha": "rcmha", "mha": "rcmha"}.get(name, name.split("_")[0])
    torch.manual_seed(0)
    model = create(name, **(SIZES | SMALL.get(family, {}) | changes)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        for module in model.modules():  # the port's centroids come from data
            if hasattr(module, "initialized"):
                module.means.normal_(generator=generator)
                module.initialized.fill_(True)
    return model


def ids_of(batch=2, tokens=19, seed=3):
    return torch.randint(
        SIZES["vocab"], (batch, tokens), generator=torch.Generator().manual_seed(seed)
    )
