"""Numbers known from elsewhere: earlier runs."""

from ..references import Printed

REFERENCES = (
    # A coarser sweep over n; what coherence guarantees as recomputed (2, 4, 6, 11 was told first).
    Printed(
        experiment="capacity",
        given={"bits": 32},
        columns=("faultless", "guaranteed"),
        rows={16: (4.0, 3.0), 64: (10.0, 5.0), 256: (27.0, 8.0), 1024: (72.0, 13.0)},
        source="measured",
        error=0.25,
        relative=0.05,
    ),
    Printed(
        experiment="passes",
        given={"d": 64},
        columns=("after 10 passes", "after 200 passes"),
        rows={63: (0.161, 0.028)},
        source="measured",
        error=0.006,
    ),
    Printed(
        experiment="passes",
        given={"d": 64, "passes": 400},
        columns=("beta = 1",),
        rows={96: (0.66,)},
        source="measured",
        error=0.0125,
    ),
    Printed(
        experiment="reliability",
        given={"p": 0.2},
        columns=(24,),
        rows={1: (0.0047,), 2: (0.3754,), 4: (0.9623,), 8: (0.9999,)},
        source="derived",
        error=2.5e-5,
    ),
)
