"""The experiments of Understanding Transformers through the Lens of Pavlovian Conditioning."""

from .entries import OURS, Entry, Source

SOURCE = Source(
    "pavlov_memory",
    "Understanding Transformers through the Lens of Pavlovian Conditioning",
    "Qiao, 2025",
    "2508.08289",
    (
        Entry(
            "pavlov_memory.errors",
            "P1: the error of Hebbian recall is (n-1)/d; its bits flip as Gaussian crosstalk "
            "predicts.",
            "abstract: capacity theorem; the law is derived here",
            30,
        ),
        Entry(
            "pavlov_memory.capacity",
            "P2: capacity grows as d at a fixed average error, as d/log when nothing may be wrong, "
            "as sqrt(d) where coherence has to guarantee it: both statements of the paper's two "
            "versions.",
            "abstract: capacity theorem, O(sqrt(d_k)) in version 1 and O(d_k) in version 2",
            30,
        ),
        Entry(
            "pavlov_memory.passes",
            "P3: the delta rule beats the Hebbian one in a single pass, is exact after many up to "
            "n = d, and needs a falling rate to reach the least-squares floor beyond.",
            "abstract: biologically plausible learning rules",
            55,
        ),
        Entry(
            "pavlov_memory.depth",
            "P4: a chain of linear memories errs as (1 + (n-1)/(dH))^L - 1; softmax clean-up after "
            "each layer removes the compounding.",
            "abstract: error propagation over depth, width and heads; the law is derived here",
            15,
        ),
        Entry(
            "pavlov_memory.reliability",
            "P5: with heads that fail independently, (1 - p^H)^L: heads need to grow only as the "
            "log of the depth.",
            "abstract: error propagation, in our reading",
            5,
        ),
        Entry(
            "pavlov_memory.conditioning",
            "P6: acquisition and extinction, blocking, overshadowing and conditioned inhibition "
            "under the delta rule; a Hebbian memory shows no blocking.",
            "abstract: queries, keys and values as the stimuli of classical conditioning",
            1,
        ),
        Entry(
            "pavlov_memory.sharpness",
            "P7: the softmax sharpness needed for clean retrieval grows as log n.",
            OURS,
            15,
        ),
        Entry(
            "pavlov_memory.trained",
            "P8: trained to recall pairs, a delta-rule layer errs less than a linear-attention "
            "layer at every width, as the laws say; in accuracy of the nearest value the two are "
            "level.",
            OURS,
            60,
        ),
    ),
)
