"""In-context linear regression with multi-head softmax attention.

Source: He, Pan, Chen, Yang, 2025, "In-Context Linear Regression Demystified: Training Dynamics and
Mechanistic Interpretability of Multi-Head Softmax Attention", arXiv 2503.12734.
"""

from ..experiment import Paper
from .analysis import HeadReport, analyse
from .data import LinearRegression, MultiTask, Prompts
from .experiments import EXPERIMENTS
from .model import CausalStack, ICLConfig, SeededLayers, SingleLayer
from .official import from_official, load_checkpoint, to_official
from .predictors import gradient_step, ridge, softmax_heads
from .training import Recipe, Trained, train

PAPER = Paper("icl_linear", "In-Context Linear Regression Demystified", "2503.12734", EXPERIMENTS)

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
    "to_official",
    "train",
]
