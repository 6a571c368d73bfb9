"""Every experiment's small form: it runs, every number is where it should be, the figure draws."""

import pytest

from attn_theory import plotting, runner, verify
from attn_theory.papers import select

QUICK = [experiment for experiment in select("all") if experiment.quick is not None]


@pytest.mark.parametrize("experiment", QUICK, ids=lambda e: e.name)
def test_numbers_are_where_they_should_be(experiment, tmp_path):
    result = runner.run(experiment, experiment.quick, folder=tmp_path)
    failed = [
        f"{check.name}: {check.measured:.5g}, expected {verify.target(check)}"
        for check in verify.verdict(experiment, result).checks
        if not check.passed and not check.note
    ]
    assert not failed, "\n".join(failed)
    files = plotting.write(experiment, result, tmp_path / "figures")
    assert all(path.stat().st_size > 0 for path in files)
