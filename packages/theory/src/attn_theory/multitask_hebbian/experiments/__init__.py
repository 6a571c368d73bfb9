"""Experiments F1 to F10 of multitasking Hebbian networks."""

from . import (
    cost,
    digits,
    dilution,
    examples,
    finite,
    growth,
    hopfield,
    phases,
    signal,
    temperature,
)

EXPERIMENTS = tuple(
    module.EXPERIMENT
    for module in (
        dilution,
        temperature,
        phases,
        finite,
        examples,
        cost,
        signal,
        growth,
        hopfield,
        digits,
    )
)
