"""What every parameter and column means: its symbol in the papers, its unit, what it may be.

The command line (`show`), the refusals, the axes of the figures and the table of symbols in the
documentation all read this one table.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers from low to high; NaN and infinities never belong.

    Attributes:
        low, high: the ends.
        open_low, open_high: whether the end itself does not belong.
        even: whether odd numbers do not belong.

    Example:
        >>> str(Range(0, 1, open_high=True)), Range(0, 1, open_high=True).holds(1.0)
        ('at least 0 and below 1', False)
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    even: bool = False

    def holds(self, x: float) -> bool:
        """Whether x belongs."""
        if self.even and x % 2:
            return False
        above = x > self.low if self.open_low else x >= self.low
        below = x < self.high if self.open_high else x <= self.high
        return math.isfinite(x) and above and below

    def __str__(self) -> str:
        """The range in words."""
        ends = []
        if self.low > -math.inf:
            ends.append(f"{'above' if self.open_low else 'at least'} {self.low:g}")
        if self.high < math.inf:
            ends.append(f"{'below' if self.open_high else 'at most'} {self.high:g}")
        return ("even and " if self.even else "") + (" and ".join(ends) or "finite")


COUNT = Range(1)
NATURAL = Range(0)
POSITIVE = Range(0, open_low=True)
NON_NEGATIVE = Range(0)
SHARE = Range(0, 1)
DILUTION = Range(0, 1, open_high=True)
FINITE = Range()


@dataclass(frozen=True)
class Quantity:
    """A parameter or a column.

    Attributes:
        symbol: in the paper's notation, TeX without the dollars.
        meaning: one phrase.
        unit: what it is counted in; empty for a pure number.
        allowed: of a parameter, or of each of its numbers where it has several.
        optional: whether one that has several may have none.
    """

    symbol: str
    meaning: str
    unit: str = ""
    allowed: Range = FINITE
    optional: bool = False


COMMON = {
    "seeds": Quantity("S", "independent repetitions", "", Range(1, 1000)),
    "base_seed": Quantity("", "chooses the random numbers", "", NATURAL),
    "seed": Quantity("s", "number of the repetition"),
    "device": Quantity("", "where torch computes, as cpu or cuda"),
    "steps": Quantity("T", "steps of training", "", COUNT),
    "step": Quantity("t", "step of training"),
    "batch": Quantity("B", "samples a step, or samples held at once", "", COUNT),
    "lr": Quantity(r"\alpha", "Adam's rate at the start of its cosine", "", POSITIVE),
    "heads": Quantity("H", "attention heads", "", COUNT),
    "head": Quantity("h", "number of the head"),
    "iterations": Quantity("", "most iterations of the solver", "", COUNT),
    "error": Quantity("", "standard error of the column before it"),
    "predictor": Quantity("", "name of the predictor"),
}

ICL_LINEAR = {
    "d": Quantity("d", "dimension of a covariate", "", COUNT),
    "length": Quantity("L", "labelled points in a prompt", "points", Range(2)),
    "lengths": Quantity("L", "labelled points in the test prompts", "points", Range(2)),
    "noise": Quantity(r"\sigma^2", "variance of the noise of every label", "label²", NON_NEGATIVE),
    "prompts": Quantity("n", "prompts of the Monte Carlo average", "", Range(2)),
    "omega": Quantity(r"\omega", "strength of a head's key-query product, KQ = ω I"),
    "mu": Quantity(r"\mu", "weight of a head's output on the label, OV = μ"),
    "tuned_at": Quantity("L_0", "length for which the fixed single head is the best", "points",
                         COUNT),
    "tuned": Quantity("L_0", "length for which the step is the best", "points", Range(2)),
    "start": Quantity("", "standard deviation of the first μ and ω", "", POSITIVE),
    "step": Quantity(r"\Delta t", "Euler's step of the flow; in a table, the step of training", "",
                     POSITIVE),
    "times": Quantity("t", "Euler steps at which the heads are kept", "steps", NATURAL),
    "snapshots": Quantity("", "pictures of KQ along training", "", Range(2)),
    "g": Quantity("g", "key-query strength of the pair ω = (g, −g)", "", POSITIVE),
    "gamma": Quantity(r"\gamma", "key-query strength of the pair ω = (γ, −γ)", "", POSITIVE),
    "means": Quantity("c", "mean of every coordinate of the covariates"),
    "mean": Quantity("c", "mean of every coordinate of the covariates"),
    "rho": Quantity(r"\rho", "correlation of neighboring coordinates, Σᵢⱼ = ρ^|i−j|", "",
                    Range(-1, 1, True, True)),
    "test": Quantity("n", "prompts on which the learned matrix is tested", "", Range(2)),
    "support": Quantity("k", "coordinates that a task depends on", "", COUNT),
    "draws": Quantity("n", "draws of rows out of the table", "", Range(2)),
    "risk": Quantity(r"\mathcal{R}", "mean squared error of the query's label", "label²"),
    "loss": Quantity(r"\mathcal{L}", "training loss", "label²"),
    "xi": Quantity(r"\xi = d/L", "dimensions a point"),
    "m": Quantity("m", "output weight of the pair μ = (m, −m)"),
    "eta": Quantity(r"\eta", "step of gradient descent"),
}  # fmt: skip

MULTITASK_HEBBIAN = {
    "n": Quantity("N", "spins", "", Range(2)),
    "sizes": Quantity("N", "spins of each network", "", Range(4), optional=True),
    "small": Quantity("N", "spins of the networks that are loaded up to K M ≈ N", "", Range(2)),
    "k": Quantity("K", "patterns", "", Range(1, 12)),
    "patterns": Quantity("K", "patterns", "", Range(1, 12)),
    "dilution": Quantity("d", "share of blank entries of a pattern", "", DILUTION),
    "dilutions": Quantity("d", "shares of blank entries of a pattern", "", DILUTION),
    "t": Quantity("T", "temperature", "1/β", POSITIVE),
    "temperatures": Quantity("T", "temperatures", "1/β", POSITIVE),
    "temperature": Quantity("T", "temperature", "1/β"),
    "beta": Quantity(r"\beta", "inverse temperature", "", NON_NEGATIVE),
    "curve": Quantity("", "dilutions on which the theory's curve is computed", "", Range(2)),
    "sweeps": Quantity("", "most sweeps of a Glauber chain", "N spin updates", COUNT),
    "quality": Quantity("r", "mean agreement of an example with its archetype", "",
                        Range(0, 1, True)),
    "qualities": Quantity("r", "mean agreements of an example with its archetype", "",
                          Range(0, 1, True)),
    "ratios": Quantity("M r^2/(1-r^2)", "examples, of the learning threshold", "", POSITIVE),
    "examples": Quantity("M", "examples of each archetype", "", COUNT),
    "loads": Quantity("K/N", "patterns a spin", "", POSITIVE),
    "size": Quantity("", "points of the diagram along each axis", "", Range(10)),
    "margin": Quantity("", "|class mean| below which a pixel is blank", "", SHARE),
    "first": Quantity("", "first stored class of digits", "", Range(0, 9)),
    "second": Quantity("", "second stored class of digits", "", Range(0, 9)),
    "tests": Quantity("", "test images, at most", "", COUNT),
    "overlap": Quantity("m", "overlap of the spins with an archetype"),
    "pattern": Quantity(r"\mu", "number of the pattern, in the order of their overlaps"),
    "rho": Quantity(r"\rho", "entropy of the examples, (1 − r²)/(M r²)"),
    "energy": Quantity("H/N", "energy a spin"),
    "products": Quantity(r"\sum_\mu L^-_\mu L^+_\mu", "sum of products of the two losses"),
}  # fmt: skip

PAVLOV_MEMORY = {
    "d": Quantity("d_k", "dimension of a key", "", Range(2)),
    "widths": Quantity("d_k", "dimensions of a key", "", Range(2)),
    "width": Quantity("d_k", "dimension of a key"),
    "tau": Quantity(r"\tau", "relative error allowed on average", "", POSITIVE),
    "bits": Quantity("", "signs that make a value", "", COUNT),
    "repetitions": Quantity("", "memories drawn", "", Range(2)),
    "loads": Quantity("n/d_k", "pairs a dimension", "", POSITIVE),
    "load": Quantity("n/d_k", "pairs a dimension"),
    "n": Quantity("n", "stored pairs"),
    "pairs": Quantity("n", "stored pairs", "", COUNT),
    "rate": Quantity(r"\alpha", "learning rate of the delta rule", "", Range(0, 2, True, True)),
    "trials": Quantity("", "trials a phase", "", COUNT),
    "trial": Quantity("t", "trial"),
    "chains": Quantity("n, d, L, H", "of each chain: pairs, key width, layers, heads", "", COUNT),
    "sharpness": Quantity("B", "inverse temperature of the softmax", "", POSITIVE),
    "passes": Quantity("p", "passes over all pairs", "", COUNT),
    "p": Quantity("p", "probability that a head fails", "", Range(0, 1, True, True)),
    "layers": Quantity("L", "layers", "", COUNT),
    "samples": Quantity("", "networks drawn", "", Range(2)),
    "vocabulary": Quantity("", "symbols that may be keys", "", COUNT),
    "values": Quantity("d_v", "values, and the width of each", "", COUNT),
    "capacity": Quantity("n", "largest number of pairs"),
    "strength": Quantity("V", "what a stimulus alone predicts"),
    "weight": Quantity("p", "softmax weight on the stored pair"),
    "accuracy": Quantity("", "share of right nearest values"),
}  # fmt: skip

RANDOM_FEATURE_ATTENTION = {
    "d": Quantity("d", "dimension of query and keys", "", Range(2)),
    "keys": Quantity("N", "keys", "", COUNT),
    "heads": Quantity("M", "random heads; 0, where it is allowed, stands for infinitely many", "",
                      NATURAL),
    "sizes": Quantity("n", "training samples", "", Range(2)),
    "size": Quantity("n", "training samples"),
    "samples": Quantity("n", "samples", "", Range(2)),
    "noise": Quantity(r"\sigma^2", "variance of the label noise; the target's is 1", "label²",
                      NON_NEGATIVE),
    "kernel_up_to": Quantity("n", "largest sample size at which the infinite kernel is fitted; 0 "
                             "for none", "", NATURAL),
    "level": Quantity("", "test error that is asked for", "label²", POSITIVE),
    "test_error": Quantity(r"\mathcal{E}", "mean squared error on the clean target", "label²"),
    "target": Quantity("f", "name of the target"),
    "model": Quantity("", "RFA, BRFA, MLP or kernel"),
}  # fmt: skip

UNIVERSAL_APPROXIMATION = {
    "degree": Quantity("m", "degree of the trigonometric polynomial", "", Range(2, even=True)),
    "degrees": Quantity("m", "degrees of the trigonometric polynomial", "", Range(2, even=True)),
    "per_axis": Quantity("", "grid points along each coordinate", "", Range(3)),
    "widths": Quantity("w", "hidden units of the feed-forward layer", "", COUNT),
    "width": Quantity("w", "hidden units of the feed-forward layer"),
    "hidden": Quantity("w", "hidden units of the feed-forward layer"),
    "sharpness": Quantity("B", "logit of the copying heads", "", POSITIVE),
    "sup": Quantity(r"\sup |T - f|", "largest error on the grid"),
    "rms": Quantity(r"\|T - f\|_2", "root-mean-square error on the grid"),
    "bound": Quantity("", "certified bound of the sup error"),
    "output": Quantity("i", "number of the output"),
}

BY_PAPER = {
    "icl_linear": ICL_LINEAR,
    "multitask_hebbian": MULTITASK_HEBBIAN,
    "pavlov_memory": PAVLOV_MEMORY,
    "random_feature_attention": RANDOM_FEATURE_ATTENTION,
    "universal_approximation": UNIVERSAL_APPROXIMATION,
}


def quantities(paper: str) -> dict[str, Quantity]:
    """The parameters and columns of a paper's experiments, those of all papers among them.

    Example:
        >>> quantities("icl_linear")["noise"].symbol, quantities("icl_linear")["seeds"].symbol
        ('\\\\sigma^2', 'S')
    """
    return COMMON | BY_PAPER.get(paper, {})
