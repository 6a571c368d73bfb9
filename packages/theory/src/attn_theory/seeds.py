"""Random generators: one per (seed, purpose), so that no array depends on another's size."""

import hashlib

import numpy as np
import torch


def numpy_generator(seed: int, purpose: str) -> np.random.Generator:
    """A generator that depends on the seed and on what it is for, and on nothing else.

    Example:
        >>> a, b = numpy_generator(0, "inputs"), numpy_generator(0, "noise")
        >>> bool(a.random() == b.random())
        False
    """
    return np.random.default_rng(_mix(seed, purpose))


def torch_generator(seed: int, purpose: str, device: str = "cpu") -> torch.Generator:
    """The same for torch, on a device.

    Example:
        >>> torch_generator(0, "inputs").device
        device(type='cpu')
    """
    return torch.Generator(device).manual_seed(_mix(seed, purpose))


def _mix(seed: int, purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:7], "big")
