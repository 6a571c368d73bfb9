"""Numbers known from elsewhere: earlier runs."""

from ..references import Printed

REFERENCES = (
    # On a grid of 101 x 101 points.
    Printed(
        experiment="certificate",
        given={},
        columns=("error, f1", "error, f2"),
        rows={
            2: (0.4556, 0.3691),
            4: (0.2982, 0.2651),
            8: (0.1737, 0.1632),
            16: (0.0948, 0.0917),
            32: (0.0498, 0.0491),
        },
        source="measured",
        relative=0.0125,
    ),
    Printed(
        experiment="certificate",
        given={},
        columns=("bound, f1", "bound, f2"),
        rows={
            2: (0.4915, 0.7307),
            4: (0.3114, 0.4758),
            8: (0.1777, 0.2780),
            16: (0.0958, 0.1528),
            32: (0.0500, 0.0806),
        },
        source="measured",
        relative=0.02,
    ),
    Printed(
        experiment="certificate",
        given={},
        columns=("hidden width",),
        rows={2: (35,), 4: (149,), 8: (738,), 16: (4302,), 32: (30479,)},
        source="measured",
    ),
    Printed(
        experiment="random_maps",
        given={"degree": 8},
        columns=("largest error / bound",),
        rows={"all maps": (0.989,)},
        source="measured",
        error=0.025,
    ),
    # One seed each; the spread over seeds is not known.
    Printed(
        experiment="trained",
        given={"steps": 1500, "batch": 512},
        columns=("sup", "rms"),
        rows={4: (0.206, 0.0457), 16: (0.060, 0.0109), 64: (0.062, 0.0065), 256: (0.034, 0.0040)},
        source="measured",
        error=float("nan"),
    ),
)
