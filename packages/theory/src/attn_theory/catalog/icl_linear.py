"""The experiments of In-Context Linear Regression Demystified."""

from .entries import OURS, Entry, Source

SOURCE = Source(
    "icl_linear",
    "In-Context Linear Regression Demystified",
    "He, Pan, Chen, Yang, 2025",
    "2503.12734",
    (
        Entry(
            "icl_linear.estimators",
            "E1: risk of two heads, one head, gradient descent, debiased gradient descent and "
            "ridge against context length, on common prompts, with closed forms.",
            "authors' code, figure that compares estimators over L; abstract: trained attention is "
            "a debiased gradient step",
            15,
        ),
        Entry(
            "icl_linear.heads",
            "E2: risk of trained models of 1, 2, 4 and 8 heads; all seeds, with the number of them "
            "that found heads of both signs.",
            "authors' code, figure of the head count; abstract: several heads outperform one",
            97,
        ),
        Entry(
            "icl_linear.dynamics",
            "E3, E4: KQ becomes a multiple of the identity, OV reads the label alone, the values "
            "sum to zero; trajectories of omega and mu, all seeds.",
            "authors' code, heat maps and trajectories; abstract: diagonal homogeneous KQ, "
            "last-entry-only zero-sum OV",
            40,
        ),
        Entry(
            "icl_linear.flow",
            "E4: gradient flow on the approximate loss for two heads: the signs split, the values "
            "sum to zero, then omega drifts as t^(-1/6); runs whose heads start alike stay with "
            "one sign.",
            "the paper's training dynamics on its approximate loss; the drift is derived here",
            15,
        ),
        Entry(
            "icl_linear.landscape",
            "E5: along the valley of the symmetric pair the risk hardly rises: gamma is where "
            "training stopped, not a fixed point.",
            OURS,
            3,
        ),
        Entry(
            "icl_linear.length",
            "E6: tuned at length 40, softmax heads improve with longer contexts, unnormalised "
            "linear attention fails away from it.",
            "abstract: softmax attention generalizes to longer sequences, linear attention does "
            "not",
            5,
        ),
        Entry(
            "icl_linear.preconditioner",
            "E7: covariates correlated as rho^|i-j|: the learned KQ is the best preconditioner of "
            "a debiased gradient step.",
            "abstract: non-isotropic covariates, preconditioned gradient descent",
            20,
        ),
        Entry(
            "icl_linear.multitask",
            "E8: two tasks on overlapping coordinates: one head smooths, two share one step, three "
            "keep the tasks apart in superposition.",
            "authors' code, multi-task notebook; abstract: superposition of tasks in heads",
            45,
        ),
        Entry(
            "icl_linear.proportional",
            "E9: with d growing in proportion to the length, one gradient step stays within a "
            "constant factor of the Bayes risk.",
            "abstract: near Bayes optimality up to a proportional factor",
            20,
        ),
        Entry(
            "icl_linear.diabetes",
            "E10: rows of a real table as prompts: two heads equal debiased gradient descent; on "
            "correlated features the isotropic step is wrong and a single head does better.",
            OURS,
            10,
        ),
        Entry(
            "icl_linear.debiasing",
            "E11: with covariates of non-zero mean the two heads follow debiased gradient descent, "
            "far below plain gradient descent; with centred covariates debiasing costs a little.",
            OURS,
            6,
        ),
    ),
)
