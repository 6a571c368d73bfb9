import dataclasses
import importlib

import pytest

from attn_theory.catalog import SOURCES
from attn_theory.papers import find, paper
from attn_theory.references import Printed, known

TABLES = {
    name: importlib.import_module(f"attn_theory.{name}.references").REFERENCES for name in SOURCES
}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_belongs_to_an_experiment_and_names_fields_of_its_configuration(name):
    experiments = {e.name.partition(".")[2]: e for e in paper(name).experiments}
    experiments |= {"curves": experiments["fast"]} if "fast" in experiments else {}
    for table in TABLES[name]:
        fields = {field.name for field in dataclasses.fields(experiments[table.experiment].config)}
        assert set(table.given) <= fields, table.experiment
        assert all(len(row) == len(table.columns) for row in table.rows.values())


def test_a_reference_is_for_its_configuration_alone():
    config = find("icl_linear.heads").config
    tables = TABLES["icl_linear"]
    assert known(tables, "heads", config)[40][2].value == 0.2410
    assert not known(tables, "heads", dataclasses.replace(config, noise=1.0))
    assert not known(tables, "estimators", dataclasses.replace(config, d=4))


def test_errors_add_up_and_may_differ_by_row():
    table = Printed(
        experiment="x", given={}, columns=("a",), rows={1: (10.0,), 2: (-10.0,)},
        source="measured", error={1: 0.5, 2: 0.25}, relative=0.01,
    )  # fmt: skip
    assert [reference.error for reference in known([table], "x", None)["a"].values()] == [0.6, 0.35]
