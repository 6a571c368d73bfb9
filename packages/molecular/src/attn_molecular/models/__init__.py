"""Networks of the package and their named sizes."""

from typing import Any

from core_attn.variants import variant

from .config import BaseConfig
from .escaip import EScAIP, EScAIPConfig
from .escaip_v1 import EScAIPV1, EScAIPV1Config
from .network import Network, Prediction

OC20 = {"forces": "direct", "cutoff": 12.0}
VARIANTS: dict[str, BaseConfig] = {
    # second release; the frequencies are those of heads of 64 channels
    "escaip_small": EScAIPConfig(dim=128, depth=4, heads=8, frequencies=(6, 4, 3, 2, 1)),
    "escaip_medium": EScAIPConfig(dim=512, depth=6, heads=8),
    "escaip_l10": EScAIPConfig(dim=512, depth=10, heads=8),
    "escaip_h640": EScAIPConfig(dim=640, depth=6, heads=10),
    "escaip_large": EScAIPConfig(dim=1024, depth=8, heads=16),
    # what is trained here in minutes
    "escaip_tiny": EScAIPConfig(
        dim=64, depth=2, heads=4, frequencies=(6, 4, 3, 2, 1), distance_size=64, distance_dim=64,
        atom_dim=32, order_dim=32, neighbors=12,
    ),
    # first release, whose parameter counts the paper names
    "escaip_v1_83m": EScAIPV1Config(dim=512, depth=10, heads=8, elements=90, **OC20),
    "escaip_v1_146m": EScAIPV1Config(dim=768, depth=8, heads=12, elements=90, **OC20),
    "escaip_v1_312m": EScAIPV1Config(dim=1024, depth=10, heads=16, elements=90, **OC20),
    "escaip_v1_45m": EScAIPV1Config(dim=512, depth=6, heads=16, cutoff=12.0),
    "escaip_v1_mptrj": EScAIPV1Config(
        dim=512, depth=6, heads=16, elements=100, stress=True, **OC20
    ),
    "escaip_v1_4m": EScAIPV1Config(dim=128, depth=4, heads=8, cutoff=12.0),
}  # fmt: skip

__all__ = [
    "VARIANTS",
    "BaseConfig",
    "EScAIP",
    "EScAIPConfig",
    "EScAIPV1",
    "EScAIPV1Config",
    "Network",
    "Prediction",
    "create",
]


def create(name: str, **changes: Any) -> Network:
    """Builds a named variant, untrained.

    Args:
        name: a key of `VARIANTS`.
        changes: fields of its configuration that differ.

    Raises:
        ValueError: no variant or no field has that name.

    Example:
        >>> create("escaip_tiny", forces="direct").config.forces
        'direct'
    """
    return variant(VARIANTS, name, **changes).build()
