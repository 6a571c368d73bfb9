"""The laws that the experiments are compared with, in TeX."""

FORMULAS = (
    (
        "Copying heads of sharpness B leak at most",
        r"|\tilde x_j - x_j| \leq \frac{(n-1) e^{-B}}{1 + (n-1) e^{-B}}",
    ),
    (
        "Certificate: Jackson's theorem, interpolation of the ridges, leak",
        r"\sup|T - f| \leq \sum_i \mathrm{Lip}_i \frac{E|t|}{\pi} + "
        r"\sum_r |a_r| \frac{(\pi g_r h_r)^2}{8} + \mathrm{leak}\cdot\sum_q |W^2_q|\, |W^1_q|_1",
    ),
    (
        "Without positions, for any permutation P",
        r"\sup|T - f| \geq \frac{1}{2}\sup_X |f(PX) - P f(X)|",
    ),
)
