"""Numbers known from elsewhere: solutions at zero temperature, earlier Monte Carlo."""

from ..references import Printed

_LEARNING = {"k": 2, "dilution": 0.3, "beta": 10.0}

REFERENCES = (
    # Three patterns at T = 0, whatever is simulated beside them.
    Printed(
        experiment="dilution",
        given={},
        columns=("m_1", "m_2", "m_3", "mixture"),
        rows={
            0.3: (0.7, 0.21, 0.063, 0.3815),
            0.5: (0.5, 0.25, 0.125, 0.3125),
            0.6: (0.4, 0.24, 0.144, 0.2720),
            0.65: (0.3286, 0.2489, 0.1693, 0.2489),
            0.7: (0.2865, 0.2235, 0.1605, 0.2235),
            0.8: (0.1960, 0.1640, 0.1320, 0.1640),
            0.9: (0.0995, 0.0905, 0.0815, 0.0905),
        },
        source="derived",
        error=1.5e-5,
    ),
    Printed(
        experiment="dilution",
        given={},
        columns=("critical dilution",),
        rows={3: (0.618034,), 4: (0.543689,), 5: (0.518790,)},
        source="derived",
        error=2.5e-7,
    ),
    Printed(
        experiment="finite",
        given={},
        columns=("m_1", "m_2"),
        rows={(0.2, 0.05): (0.8, 0.16), (0.5, 0.05): (0.5, 0.25), (0.8, 0.05): (0.1798, 0.1798)},
        source="derived",
        error=5e-4,
    ),
    # One sample at N = 3000; rows are numbers of examples of quality 0.2.
    Printed(
        experiment="examples",
        given=_LEARNING,
        columns=("supervised, m_1", "supervised, m_2"),
        rows={5: (0.206, 0.166), 24: (0.328, 0.351), 100: (0.602, 0.290), 400: (0.693, 0.214)},
        source="measured",
        error=0.0075,
    ),
    # The theory's number at M = 5 took the examples for Gaussian.
    Printed(
        experiment="examples",
        given=_LEARNING,
        columns=("theory, m_1", "theory, m_2"),
        rows={5: (0.196, 0.196), 24: (0.344, 0.344), 100: (0.599, 0.274), 400: (0.696, 0.201)},
        source="derived",
        error={5: 7.5e-3, 24: 7.5e-4, 100: 7.5e-4, 400: 7.5e-4},
    ),
)
