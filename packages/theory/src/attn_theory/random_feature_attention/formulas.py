"""The laws that the experiments are compared with, in TeX."""

FORMULAS = (
    (
        "Features of M heads with frozen weights, inputs lifted by a 1",
        r"f(x_0, X) = \sum_{m=1}^M \left\langle v_m, \frac{1}{N}\sum_{i=1}^N "
        r"\mathrm{ReLU}(\tilde x_0^\top W_m \tilde x_i)\, \tilde x_i\right\rangle",
    ),
    (
        "Weights of RFA and of BRFA",
        r"(W_m)_{ab} \sim N(0, 1/4),\qquad W_m = \mathrm{diag}(I_d, 0) + N(0, 1/4)",
    ),
    (
        "Kernel of infinitely many heads, on the unit sphere",
        r"k = \frac{1}{N N'}\sum_{ij} b_{ij}\, k_1(c_{ij}),\quad "
        r"b_{ij} = 1 + \langle x_i, y_j\rangle,\quad "
        r"c_{ij} = \frac{(1 + \langle x_0, y_0\rangle)\, b_{ij}}{4}",
    ),
    (
        "with",
        r"k_1(c) = \frac{\sqrt{1-c^2} + (\pi - \arccos c)\, c}{2\pi}",
    ),
    (
        "Targets",
        r"\frac{1}{N}\sum_i \langle\beta, x_i\rangle^p,\qquad "
        r"\frac{1}{N}\sum_i \langle x_0, x_i\rangle^q \langle\beta, x_i\rangle",
    ),
)
