"""The commands of the package over ASE."""

from .eos import elastic, eos
from .md import md
from .neb import neb
from .phonons import phonons
from .predict import predict
from .program import export
from .relax import relax

COMMANDS = {
    "md": md,
    "relax": relax,
    "neb": neb,
    "phonons": phonons,
    "eos": eos,
    "elastic": elastic,
    "predict": predict,
    "export": export,
}

__all__ = ["COMMANDS"]
