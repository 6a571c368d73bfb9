"""In-context linear regression with multi-head softmax attention.

Source: He, Pan, Chen, Yang, 2025, "In-Context Linear Regression Demystified: Training Dynamics and
Mechanistic Interpretability of Multi-Head Softmax Attention", arXiv 2503.12734.
"""

from .. import catalog
from ..experiment import Paper
from . import theory
from .analysis import HeadReport, analyse
from .data import LinearRegression, MultiTask, Prompts
from .experiments import EXPERIMENTS
from .formulas import FORMULAS
from .model import CausalStack, ICLConfig, SeededLayers, SingleLayer
from .official import from_official, load_checkpoint, to_official
from .predictors import gradient_step, ridge, softmax_heads
from .training import Recipe, Trained, train

NOTES = """Data, model, recipe and the approximate loss follow the authors' code. The risks of
gradient descent (GD), debiased gradient descent (DGD), Bayes and linear attention, the
preconditioners, the multi-task conditions and the drift t^(-1/6) are derived here and checked by
simulation; they are not quoted from the paper.

What differs from the authors' runs: Adam at 5e-3 with a cosine for 3000 steps instead of
1e-3 for 500,001. Slips of their code are not followed: the logged omega divides by sqrt(d+2) where
the width is d+1; the head-count figure adds the noise twice (taken off in the stars); their stack
applies the softmax twice (`compat="official-stack"`).

What does not hold as often told: with centred covariates the best GD step is slightly *better* than
the best debiased one; debiasing pays at a fixed step for short contexts, and whenever the
covariates have a mean. The final omega is where training stopped, not a fixed point. Two heads that
start with one sign stay at the single-head loss: the shares of seeds are in the legends. On raw,
correlated real features the isotropic two-head model loses to a single head. With four heads and a
few thousand steps the weak heads are not clean yet."""

PAPER = Paper(catalog.SOURCES["icl_linear"], EXPERIMENTS, NOTES, FORMULAS)

__all__ = [
    "CausalStack",
    "HeadReport",
    "ICLConfig",
    "LinearRegression",
    "MultiTask",
    "PAPER",
    "Prompts",
    "Recipe",
    "SeededLayers",
    "SingleLayer",
    "Trained",
    "analyse",
    "from_official",
    "gradient_step",
    "load_checkpoint",
    "ridge",
    "softmax_heads",
    "theory",
    "to_official",
    "train",
]
