"""Kernels of the package."""

from .rows import band_product, rms_norm

__all__ = ["band_product", "rms_norm"]
