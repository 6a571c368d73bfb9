"""The laws that the experiments are compared with, in TeX."""

FORMULAS = (
    (
        "Hebbian and delta rule",
        r"S_t = S_{t-1} + k_t v_t^\top,\qquad "
        r"S_t = S_{t-1} + \beta_t k_t\,(v_t - S_{t-1}^\top k_t)^\top",
    ),
    (
        "Error of Hebbian recall, and of its signs",
        r"\frac{E|o - v|^2}{E|v|^2} = \frac{n-1}{d_k},\qquad "
        r"\frac{1}{2}\,\mathrm{erfc}\sqrt{\frac{d_k}{2(n-1)}}",
    ),
    ("Capacity at an average error τ", r"n = 1 + \tau d_k"),
    ("Floor of the delta rule", r"1 - \frac{d_k}{n}\quad (n > d_k)"),
    (
        "Chain of L layers of H heads",
        r"\left(1 + \frac{n-1}{d_k H}\right)^L - 1",
    ),
    (
        "Every one of L layers keeps a head, each failing with probability p",
        r"(1 - p^H)^L",
    ),
    (
        "Acquisition, and extinction",
        r"V_t = 1 - (1-\alpha)^t,\qquad V_t = V_0 (1-\alpha)^t",
    ),
    ("Softmax that puts half its weight on the stored pair", r"\log(n-1) + \frac{B^2}{2 d_k} = B"),
)
