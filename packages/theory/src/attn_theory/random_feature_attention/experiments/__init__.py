"""Experiments of random-feature attention."""

from . import curves, dimension, heads, kernel

EXPERIMENTS = (curves.FAST, curves.LARGE, heads.EXPERIMENT, dimension.EXPERIMENT, kernel.EXPERIMENT)
