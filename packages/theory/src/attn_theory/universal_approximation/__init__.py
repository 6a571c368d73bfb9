"""Universal approximation by a single-layer Transformer, with the weights and a certificate.

The statement is of Gumaan, 2025, "Universal Approximation Theorem for a Single-Layer Transformer",
arXiv 2507.10581; the constructive proof and its rate are ours, for functions with known Lipschitz
constants, and do not verify the paper's.
"""

from .. import catalog
from ..experiment import Paper
from .construction import Construction, approximate, degree_for
from .experiments import EXPERIMENTS
from .formulas import FORMULAS
from .model import SingleLayerTransformer, TransformerConfig

NOTES = """\
The statement is the paper's; the proof is not verified here. The construction, its weights
in closed form and its certificate are ours, for functions with known Lipschitz constants. The
certificate is Jackson's bound, taken on the grid of the coefficients themselves, plus the error of
the piecewise-linear interpolation, plus the leak of the copying heads.

The error falls as 1/degree only in the limit: its exponent is -.93 from degree 16 to 32, and -.81
from 2 to 32.

What the statement needs and does not say: without positions a layer commutes with permutations, and
no width gets below a certified lower bound. Training finds far smaller networks, without a
certificate. Related in aim, not compared by numbers: "Universal Approximation with Softmax
Attention", arXiv 2504.15956."""

PAPER = Paper(catalog.SOURCES["universal_approximation"], EXPERIMENTS, NOTES, FORMULAS)

__all__ = [
    "Construction",
    "PAPER",
    "SingleLayerTransformer",
    "TransformerConfig",
    "approximate",
    "degree_for",
]
