"""Data modules of the package."""

from .emt import EmtMetals
from .reading import Frame, Keys, read_frames
from .structures import Structures
from .xtb import XtbMolecules

__all__ = ["EmtMetals", "Frame", "Keys", "Structures", "XtbMolecules", "read_frames"]
