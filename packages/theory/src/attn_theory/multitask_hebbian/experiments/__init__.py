"""Experiments F1 to F10 of multitasking Hebbian networks."""

from . import (
    cost,
    digits,
    dilution,
    exact,
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
        exact,
        examples,
        cost,
        signal,
        growth,
        hopfield,
        digits,
    )
)
