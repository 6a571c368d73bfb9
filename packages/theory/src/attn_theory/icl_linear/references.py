"""Numbers of the authors' code and of earlier runs, and best risks that have no closed form."""

from functools import lru_cache

import numpy as np
import torch

from ..references import Printed, Reference
from ..seeds import numpy_generator, torch_generator
from .data import LinearRegression
from .predictors import smoothers

_TASK = {"d": 5, "noise": 0.1}
_TRAINED = {**_TASK, "length": 40}

REFERENCES = (
    # Printed in the authors' notebook for 50,000 prompts per length; the standard deviation of a
    # squared error is about twice its mean.
    Printed(
        experiment="estimators",
        given={**_TASK, "omega": 0.13, "mu": 3.45, "tuned_at": 40},
        columns=("two heads", "one head", "GD", "DGD", "ridge"),
        rows={
            10: (0.6039, 0.8754, 0.6434, 0.6140, 0.1938),
            20: (0.3675, 0.5859, 0.3709, 0.3692, 0.1346),
            40: (0.2430, 0.4048, 0.2407, 0.2431, 0.1146),
            60: (0.1997, 0.3389, 0.1976, 0.1993, 0.1087),
            80: (0.1759, 0.3016, 0.1740, 0.1757, 0.1056),
            100: (0.1638, 0.2844, 0.1622, 0.1635, 0.1041),
        },
        source="official code",
        relative=0.009,
    ),
    Printed(
        experiment="estimators",
        given=_TASK,
        columns=("one head, mu of each L",),
        rows={10: (0.7483,), 20: (0.5698,), 40: (0.4066,), 60: (0.3350,), 100: (0.2622,)},
        source="measured",
        relative=0.009,
    ),
    Printed(
        experiment="estimators",
        given=_TASK,
        columns=("Bayes",),
        rows={10: (0.1957,), 20: (0.1339,), 40: (0.1145,), 60: (0.1092,), 100: (0.1053,)},
        source="measured",
        error=1e-4,
    ),
    # Trained for 500,001 steps by the authors, one seed each, tested at two lengths on 20,000
    # prompts; the 0.1 that their figure adds to a risk already holding the noise is taken off.
    Printed(
        experiment="heads",
        given=_TRAINED,
        columns=(40, 100),
        rows={1: (0.4060, 0.2809), 2: (0.2410, 0.1685), 4: (0.2448, 0.1697), 8: (0.2357, 0.1684)},
        source="official code",
        relative=0.013,
    ),
    Printed(
        experiment="flow",
        given={**_TRAINED, "heads": 2, "start": 0.1, "step": 0.01},
        columns=("gamma",),
        rows={5000: (0.3523,), 20_000: (0.2718,), 100_000: (0.2056,), 200_000: (0.1828,)},
        source="measured",
        relative=0.0125,
    ),
    # 60,000 prompts, common to all g: differences are far sharper than the level.
    Printed(
        experiment="landscape",
        given=_TRAINED,
        columns=("risk",),
        rows={
            0.02: (0.24116,),
            0.1: (0.24124,),
            0.13: (0.24142,),
            0.2: (0.24263,),
            0.3: (0.24693,),
            0.4: (0.25403,),
        },
        source="measured",
        error=1e-3,
    ),
    Printed(
        experiment="length",
        given={**_TASK, "tuned": 40},
        columns=("linear attention",),
        rows={20: (0.4849,), 40: (0.2398,), 80: (0.8595,), 160: (6.539,), 320: (35.66,)},
        source="derived",
        relative=1.5e-4,
    ),
    Printed(
        experiment="length",
        given={**_TASK, "tuned": 40, "omega": 0.13},
        columns=("two softmax heads",),
        rows={20: (0.366,), 40: (0.243,), 80: (0.179,), 160: (0.147,), 320: (0.131,)},
        source="measured",
        error=5e-4,
        relative=5e-3,
    ),
    Printed(
        experiment="preconditioner",
        given={**_TRAINED, "rho": 0.5},
        columns=("risk with G", "risk with the best scalar step"),
        rows={"closed form": (0.2368, 0.3760)},
        source="derived",
        error=2.5e-5,
    ),
    Printed(
        experiment="preconditioner",
        given={**_TRAINED, "rho": 0.5},
        columns=("G",),
        rows={
            (0, 0): (1.091,),
            (1, 1): (1.288,),
            (2, 2): (1.289,),
            (3, 3): (1.288,),
            (4, 4): (1.091,),
            (0, 1): (-0.464,),
            (1, 2): (-0.449,),
        },
        source="derived",
        error=1.5e-4,
    ),
    # Best of three starts on 12,000 prompts.
    Printed(
        experiment="multitask",
        given={"d": 6, "length": 48, "noise": 0.1, "support": 4},
        columns=("loss",),
        rows={1: (1.190,), 2: (0.550,), 3: (0.412,), 4: (0.411,)},
        source="measured",
        error=0.005,
        relative=0.005,
    ),
    Printed(
        experiment="proportional",
        given={"length": 100, "noise": 3.0},
        columns=("step of the limit", "GD, closed form"),
        rows={20: (0.5556, 3.4475)},
        source="derived",
        error=2.5e-5,
    ),
    Printed(
        experiment="proportional",
        given={"length": 100, "noise": 3.0},
        columns=("ridge", "Bayes, Rao-Blackwell"),
        rows={20: (3.4051, 3.406)},
        source="measured",
        error=5e-4,
    ),
    # 4000 draws.
    Printed(
        experiment="diabetes",
        given={"gamma": 0.05, "noise": 1.0},
        columns=("context mean", "two heads", "DGD", "one head", "ridge"),
        rows={
            ("whitened", 20): (1.078, 0.684, 0.684, 0.811, 0.629),
            ("whitened", 40): (1.007, 0.603, 0.603, 0.715, 0.557),
            ("whitened", 100): (1.000, 0.534, 0.534, 0.619, 0.514),
            ("raw", 40): (1.026, 0.818, 0.823, 0.588, 0.543),
            ("raw", 100): (0.974, 0.947, 0.953, 0.627, 0.511),
        },
        source="measured",
        error=0.015,
    ),
    # 60,000 prompts; large shifts make heavy tails, and with them larger errors.
    Printed(
        experiment="debiasing",
        given={**_TRAINED, "gamma": 0.1},
        columns=("GD", "DGD", "two heads"),
        rows={
            0.0: (0.2387, 0.2419, 0.2418),
            0.5: (0.3946, 0.2796, 0.2796),
            1.0: (0.7054, 0.3884, 0.3889),
            2.0: (0.8694, 0.8130, 0.8172),
        },
        source="measured",
        error={0.0: 0.002, 0.5: 0.002, 1.0: 0.0035, 2.0: 0.00875},
    ),
)


@lru_cache(maxsize=64)
def bayes_risk(d: int, n: int, s2: float, samples: int = 2000) -> Reference:
    """Bayes risk at any size: s2 + s2 E tr (X^T X + s2 d I)^-1, by simulation of X alone.

    Args:
        d: features of a covariate.
        n: points in a prompt.
        s2: variance of the noise.
        samples: drawn contexts.

    Example:
        >>> value, error, source = bayes_risk(5, 40, 0.1)
        >>> round(value, 4), error < 1e-4, source
        (0.1145, True, 'derived')
    """
    rng = numpy_generator(0, f"bayes {d} {n}")
    x = rng.normal(size=(samples, n, d))
    gram = x @ x.mT if n < d else x.mT @ x
    values = np.linalg.eigvalsh(gram)
    # A direction that no point of the context spans keeps its prior variance 1/d.
    excess = (s2 / (values + s2 * d)).sum(-1) + max(d - n, 0) / d
    return Reference(float(s2 + excess.mean()), float(excess.std() / samples**0.5), "derived")


@lru_cache(maxsize=64)
def single_head_risk(d: int, n: int, s2: float, samples: int = 20_000) -> Reference:
    """Least risk of one head y = mu <y, softmax(omega X x_q)>, over omega and mu, by simulation.

    Args:
        d: features of a covariate.
        n: points in a prompt.
        s2: variance of the noise.
        samples: prompts, common to all omega.

    Example:
        >>> value, error, _ = single_head_risk(5, 40, 0.1)
        >>> abs(value - 0.4023) < 4 * error
        True
    """
    generator = torch_generator(0, f"single head {d} {n}")
    omega = d**-0.5 * torch.linspace(0.5, 1.5, 21, dtype=torch.float64)
    reads, labels = [], []
    for start in range(0, samples, 2000):
        count = min(2000, samples - start)
        prompts = LinearRegression(d, n, s2).sample(count, generator=generator, dtype=torch.float64)
        reads.append(smoothers(prompts, omega))
        labels.append(prompts.y_query)
    read, y = torch.cat(reads), torch.cat(labels)
    mu = (read * y).mean(0) / read.square().mean(0)
    loss = (mu * read - y).square()
    best = int(loss.mean(0).argmin())
    error = loss[:, best].std() / samples**0.5
    return Reference(float(loss[:, best].mean()), float(error), "derived")
