"""Official checkpoints and configurations."""

from .escaip import config_from, from_official, gradient_from_direct, to_official

__all__ = ["config_from", "from_official", "gradient_from_direct", "to_official"]
