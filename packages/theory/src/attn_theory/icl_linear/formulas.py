"""The laws that the experiments are compared with, in TeX."""

FORMULAS = (
    (
        "Data; the risk holds the noise of the query's label",
        r"y_\ell = \langle\beta, x_\ell\rangle + \varepsilon_\ell,\quad "
        r"x_\ell \sim N(0, I_d),\quad \beta \sim N(0, I_d/d),\quad "
        r"\varepsilon_\ell \sim N(0, \sigma^2)",
    ),
    (
        "Model of H heads, with the query z_q and the context Z",
        r"\hat y = \sum_{h=1}^H OV_h\, Z^\top \mathrm{softmax}(Z\, KQ_h\, z_q)",
    ),
    (
        "Gradient descent (GD)",
        r"\mathcal{R} = 1 + \sigma^2 - 2\eta + \eta^2\left(1 + \frac{d + 1 + \sigma^2 d}{L}\right)",
    ),
    (
        "Debiased gradient descent (DGD)",
        r"\mathcal{R} = 1 + \sigma^2 - 2\eta\frac{L-1}{L} + "
        r"\eta^2 \frac{(L-1)(L + d + \sigma^2 d)}{L^2},\qquad "
        r"\eta^* = \frac{L}{L + d + \sigma^2 d}",
    ),
    (
        "Bayes",
        r"\mathcal{R} = \sigma^2 + \sigma^2\, E\, \mathrm{tr}\,(X^\top X + \sigma^2 d\, I)^{-1}",
    ),
    (
        "Bayes, d and L growing with d/L = ξ",
        r"\mathcal{R} = \frac{1}{2}\left(\sigma^2 + \frac{\xi-1}{\xi} + "
        r"\sqrt{4\sigma^2 + \left(\sigma^2 + \frac{1-\xi}{\xi}\right)^2}\right)",
    ),
    (
        "Approximate loss of heads with KQ = ω I and OV = μ, the exponential taken entry by entry",
        r"\tilde{\mathcal{L}}(\mu, \omega) = 1 + \sigma^2 - 2\mu^\top\omega + \mu^\top\left("
        r"\omega\omega^\top + \frac{1+\sigma^2}{L} e^{d\,\omega\omega^\top}\right)\mu",
    ),
    (
        "Late drift of the pair ω = (γ, −γ)",
        r"\gamma(t) = \left(4\kappa d^2 t\right)^{-1/6},\qquad \kappa = \frac{(1+\sigma^2) d}{L}",
    ),
    (
        "Linear attention tuned at length L_0, with r = L/L_0",
        r"\mathcal{R} = 1 + \sigma^2 - 2\eta r + "
        r"(\eta r)^2\left(1 + \frac{d + 1 + \sigma^2 d}{L}\right)",
    ),
    (
        "Best preconditioner of the debiased step",
        r"G = \left(\Sigma + \frac{\mathrm{tr}\,\Sigma + d\sigma^2}{L} I\right)^{-1}",
    ),
    (
        "Tasks on k coordinates each: apart, and sharing one step",
        r"k\left(1 - \frac{L-1}{L + k + \sigma^2 k}\right),\qquad "
        r"k\left(1 - \frac{(L-1)/L}{1 + d/L + \sigma^2 d/L}\right)",
    ),
)
