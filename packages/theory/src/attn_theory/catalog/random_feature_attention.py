"""The experiments of What can a Single Attention Layer Learn?"""

from .entries import Entry, Source

SOURCE = Source(
    "random_feature_attention",
    "What can a Single Attention Layer Learn? A Study Through the Random Features Lens",
    "Fu, Guo, Bai, Mei, 2023",
    "2307.11353",
    (
        Entry(
            "random_feature_attention.kernel",
            "The closed form of the infinite-head kernel against finite heads; permuting or "
            "duplicating keys changes nothing; scores have unit variance.",
            "the paper's random-feature model; its kernel in closed form is derived here",
            5,
        ),
        Entry(
            "random_feature_attention.fast",
            "d = N = 8, 400 heads: test error of RFA, BRFA and a two-layer network of equal size "
            "on permutation-invariant targets; with a rotation between query and keys as control. "
            "Stars: one seed of an earlier run.",
            "abstract: fewer samples than a two-layer network; weights with a mean help",
            210,
        ),
        Entry(
            "random_feature_attention.large",
            "d = N = 16, 1000 heads (17,000 parameters), the paper's size as recalled: the network "
            "has learned nothing of even degrees where attention has; q = 4 is learned by nobody.",
            "the paper's simulations, at their size as recalled",
            140,
        ),
        Entry(
            "random_feature_attention.heads",
            "More heads at a fixed sample size: the error falls towards that of the infinite-head "
            "kernel; with 1280 heads it is still up to 22 % above.",
            "abstract: excess risk bounds with finitely many heads",
            60,
        ),
        Entry(
            "random_feature_attention.dimension",
            "Samples that RFA needs for a quadratic of a key grow as about d^2.",
            "abstract: sample complexity; the exponents as recalled",
            60,
        ),
    ),
)
