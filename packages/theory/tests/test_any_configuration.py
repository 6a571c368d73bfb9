"""Every experiment at a small configuration that nobody has seen: table, figure, glossary."""

import dataclasses
import json

import polars as pl
import pytest

from attn_theory import glossary, plotting, runner, tables
from attn_theory.papers import select

ICL = {"d": 3, "noise": 0.5}
SMALL = {
    "icl_linear.estimators": {**ICL, "lengths": (6, 11), "prompts": 60, "batch": 50},
    "icl_linear.heads": {
        **ICL, "seeds": 2, "heads": (1, 3), "length": 8, "lengths": (5, 8), "steps": 3, "batch": 4,
        "prompts": 20,
    },
    "icl_linear.dynamics": {
        **ICL, "seeds": 2, "heads": (2,), "length": 8, "steps": 60, "batch": 4, "snapshots": 3
    },
    "icl_linear.flow": {**ICL, "seeds": 9, "length": 11, "steps": 3000},
    "icl_linear.landscape": {**ICL, "length": 11, "g": (0.1, 0.2, 0.3), "prompts": 100},
    "icl_linear.length": {**ICL, "tuned": 11, "lengths": (6, 11), "prompts": 60, "batch": 50},
    "icl_linear.preconditioner": {
        **ICL, "length": 11, "rho": -0.3, "prompts": 300, "iterations": 3, "test": 100
    },
    "icl_linear.multitask": {
        "d": 5, "noise": 0.5, "support": 3, "heads": (2,), "seeds": 2, "length": 9, "prompts": 40,
        "iterations": 3,
    },
    "icl_linear.proportional": {"length": 12, "d": (3, 15), "noise": 0.5, "prompts": 40},
    "icl_linear.diabetes": {"draws": 30, "lengths": (11,), "noise": 0.5},
    "icl_linear.debiasing": {**ICL, "length": 9, "means": (0.0, 0.7), "prompts": 60, "batch": 50},
    "random_feature_attention.kernel": {"d": 3, "keys": 4, "samples": 6, "heads": (3, 9)},
    "random_feature_attention.fast": {
        "seeds": 2, "d": 3, "heads": 7, "sizes": (20, 30), "kernel_up_to": 20
    },
    "random_feature_attention.large": {"seeds": 1, "d": 3, "heads": 7, "sizes": (20,)},
    "random_feature_attention.heads": {"seeds": 2, "d": 3, "samples": 30, "heads": (3, 0)},
    "random_feature_attention.dimension": {
        "seeds": 2, "d": (3, 4), "heads": 7, "sizes": (20, 40), "noise": 0.2
    },
    "universal_approximation.certificate": {"degrees": (2, 6), "per_axis": 7},
    "universal_approximation.random_maps": {"seeds": 2, "degree": 4, "per_axis": 7},
    "universal_approximation.maps": {"degree": 2, "per_axis": 7},
    "universal_approximation.trained": {
        "seeds": 2, "widths": (3, 5), "steps": 3, "batch": 8, "per_axis": 7
    },
    "universal_approximation.positions": {
        "seeds": 2, "widths": (3, 5), "steps": 3, "batch": 8, "per_axis": 7
    },
    "universal_approximation.sharpness": {"degree": 2, "sharpness": (3.0, 5.0), "per_axis": 7},
    "universal_approximation.smooth": {"degrees": (2,), "per_axis": 7},
    "pavlov_memory.errors": {"widths": (6,), "loads": (0.5, 1.5), "bits": 4, "repetitions": 2},
    "pavlov_memory.capacity": {"widths": (8, 12), "tau": 0.5, "bits": 4, "repetitions": 5},
    "pavlov_memory.passes": {"seeds": 3, "d": 6, "pairs": (3, 9), "passes": 4},
    "pavlov_memory.depth": {"seeds": 3, "chains": (4, 6, 2, 1)},
    "pavlov_memory.reliability": {"p": 0.3, "heads": (1, 3), "layers": (2, 5), "samples": 50},
    "pavlov_memory.conditioning": {"rate": 0.4, "trials": 7},
    "pavlov_memory.sharpness": {
        "seeds": 2, "d": 8, "pairs": (4, 9), "sharpness": (1.0, 5.0, 9.0)
    },
    "pavlov_memory.trained": {
        "seeds": 2, "widths": (3, 5), "pairs": 4, "vocabulary": 9, "values": 5, "batch": 4,
        "steps": 3,
    },
    "multitask_hebbian.dilution": {
        "seeds": 2, "patterns": (2, 4), "t": 0.1, "curve": 3, "dilutions": (0.25, 0.55), "n": 60,
        "sweeps": 200,
    },
    "multitask_hebbian.temperature": {
        "seeds": 2, "k": 2, "dilutions": (0.35,), "temperatures": (0.15, 0.4), "n": 60,
        "sweeps": 200,
    },
    "multitask_hebbian.phases": {"k": 2, "size": 12, "iterations": 20},
    "multitask_hebbian.finite": {"seeds": 2, "n": 60, "sweeps": 200},
    "multitask_hebbian.exact": {"seeds": 9, "n": 6, "temperatures": (0.3,), "sweeps": 10},
    "multitask_hebbian.examples": {
        "seeds": 2, "qualities": (0.5,), "ratios": (1.0, 3.0), "n": 80, "sizes": (40,),
        "small": (20,), "sweeps": 200,
    },
    "multitask_hebbian.cost": {"seeds": 2, "n": 30, "k": 2, "sweeps": 2},
    "multitask_hebbian.signal": {
        "seeds": 2, "n": 60, "loads": (0.1,), "quality": 0.5, "examples": (3,)
    },
    "multitask_hebbian.growth": {"seeds": 2, "sizes": (64, 300), "dilution": 0.3, "sweeps": 200},
    "multitask_hebbian.hopfield": {
        "seeds": 2, "n": 60, "k": 2, "dilutions": (0.0, 0.4), "sweeps": 200
    },
    "multitask_hebbian.digits": {"margin": 0.3, "first": 3, "second": 7, "tests": 5},
}  # fmt: skip
EXPERIMENTS = select("all")


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_it_runs_and_leaves_its_numbers_with_names(experiment, tmp_path):
    config = dataclasses.replace(experiment.config, **SMALL[experiment.name])
    assert experiment.seconds(config) < experiment.entry.seconds
    result = runner.run(experiment, config, folder=tmp_path)
    table = tables.frame(experiment.tidy, result)
    assert len(table) > 0 and len(tables.summary(experiment.tidy, table)) > 0
    files = plotting.write(experiment, result, tmp_path / "figures")
    assert {path.suffix for path in files} == {".png", ".svg", ".pdf", ".csv", ".json"}
    assert all(path.stat().st_size > 0 and result.key in path.name for path in files)
    [main] = [path for path in files if path.name.endswith(f"{result.key}.csv")]
    assert pl.read_csv(main, infer_schema_length=None).columns == table.columns
    [caption] = [path for path in files if path.suffix == ".json"]
    assert json.loads(caption.read_text())["claim"] == experiment.entry.claim


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_every_parameter_is_in_the_glossary(experiment):
    names = {field.name for field in dataclasses.fields(experiment.config)}
    assert names <= set(glossary.quantities(experiment.paper))


def test_every_symbol_is_a_formula_that_can_be_drawn():
    from matplotlib.figure import Figure

    figure = Figure()
    for paper in glossary.BY_PAPER:
        for quantity in glossary.quantities(paper).values():
            if quantity.symbol:
                figure.text(0, 0, f"${quantity.symbol}$")
    figure.canvas.draw()
