"""Experiments E1 to E11 of in-context linear regression."""

from . import (
    debiasing,
    diabetes,
    dynamics,
    estimators,
    flow,
    heads,
    landscape,
    length,
    multitask,
    preconditioner,
    proportional,
)

EXPERIMENTS = tuple(
    module.EXPERIMENT
    for module in (
        estimators,
        heads,
        dynamics,
        flow,
        landscape,
        length,
        preconditioner,
        multitask,
        proportional,
        diabetes,
        debiasing,
    )
)
