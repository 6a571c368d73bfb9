"""The experiments of Universal Approximation Theorem for a Single-Layer Transformer."""

from .entries import OURS, Entry, Source

SOURCE = Source(
    "universal_approximation",
    "Universal Approximation Theorem for a Single-Layer Transformer",
    "Gumaan, 2025",
    "2507.10581",
    (
        Entry(
            "universal_approximation.certificate",
            "U1: f1 = |x1 - x2|, f2 = max(x1, x2^2): the constructed block's sup error stays below "
            "its certificate and falls as 1/degree in the limit.",
            "the paper's theorem, by a construction of our own",
            12,
        ),
        Entry(
            "universal_approximation.random_maps",
            "U1: random convex piecewise-linear maps, degree 8: no error exceeds its certificate.",
            "the paper's theorem, by a construction of our own",
            10,
        ),
        Entry(
            "universal_approximation.maps",
            "U2: the error of the construction sits on the kinks and the border.",
            OURS,
            3,
        ),
        Entry(
            "universal_approximation.trained",
            "U3: training finds far smaller networks than the construction, but only the "
            "construction carries a certificate.",
            OURS,
            80,
        ),
        Entry(
            "universal_approximation.positions",
            "U4: without positions no width goes below the certified 1/2 on a target that is not "
            "equivariant; an equivariant target is learned.",
            "the paper's theorem: where it needs positions",
            40,
        ),
        Entry(
            "universal_approximation.sharpness",
            "U5: the leak of the copying heads vanishes as e^-B, down to the floor of the other "
            "terms.",
            OURS,
            10,
        ),
        Entry(
            "universal_approximation.smooth",
            "U6: on the smooth cos(pi x1) x2 a degree of 4 is already close; the worst points lie "
            "on the border, where the even extension has a kink.",
            OURS,
            10,
        ),
    ),
)
