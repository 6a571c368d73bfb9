"""The laws that the experiments are compared with, in TeX."""

FORMULAS = (
    (
        "Couplings and energy, with patterns in {−1, 0, 1}",
        r"J_{ij} = \frac{1}{N}\sum_{\mu=1}^K \xi_i^\mu \xi_j^\mu,\qquad "
        r"H = -\frac{1}{2}\sum_{i \neq j} J_{ij} s_i s_j",
    ),
    (
        "Overlaps of an infinite network",
        r"m_\mu = E_\xi\left[\xi^\mu \tanh\left(\beta \sum_\nu m_\nu \xi^\nu\right)\right]",
    ),
    ("Critical temperature", r"T_c = 1 - d"),
    (
        "Hierarchical state at T = 0, stable below d_c",
        r"m_k = (1-d)\, d^{k-1},\qquad 1 - 2 d_c + d_c^K = 0",
    ),
    (
        "Entropy of M examples of quality r, and the learning threshold ρ = 1",
        r"\rho = \frac{1 - r^2}{M r^2},\qquad M_c = \frac{1 - r^2}{r^2}",
    ),
    ("One pattern learned, T = 0", r"m = (1-d)\,\mathrm{erf}\frac{1}{\sqrt{2\rho}}"),
    (
        "Cost and loss",
        r"\frac{H}{N} = -\frac{1}{2}\sum_\mu\left[\left(1 - \frac{d_\mu}{2}\right)^2 - "
        r"L^-_\mu L^+_\mu\right] + \mathrm{const}",
    ),
)
