"""Random-feature attention: frozen random query-key weights, trained values.

Source: Fu, Guo, Bai, Mei, 2023, "What can a Single Attention Layer Learn? A Study Through the
Random Features Lens", arXiv 2307.11353.
"""

from .. import catalog
from ..experiment import Paper
from .data import Inputs, sphere
from .experiments import EXPERIMENTS
from .formulas import FORMULAS
from .kernel import infinite_kernel
from .model import RandomFeatureAttention, RandomFeatureMLP, RFAConfig

NOTES = """\
The claims are the abstract's. The weights' variance, the bias of BRFA, the target families
and the sample complexities are recalled from the paper, not checked against its text; the kernel of
infinitely many heads is derived here. Chosen here: the scale of the network's weights, penalties
from 1e-7 to 1e-2 by a validation split, label noise of 0.1.

What must be read with care: in the large setting no model learns q = 4, so that nothing can be
concluded from it; a rotation between query and keys removes the advantage of the biased weights, as
it should."""

PAPER = Paper(catalog.SOURCES["random_feature_attention"], EXPERIMENTS, NOTES, FORMULAS)

__all__ = [
    "Inputs",
    "PAPER",
    "RFAConfig",
    "RandomFeatureAttention",
    "RandomFeatureMLP",
    "infinite_kernel",
    "sphere",
]
