"""Every experiment's small form: it runs, every number is where it should be, the figure draws."""

import dataclasses

import pytest

from attn_theory import plotting, runner, verify
from attn_theory.papers import select


@pytest.mark.parametrize("base_seed", [0, 1])
@pytest.mark.parametrize("experiment", select("all"), ids=lambda e: e.name)
def test_numbers_are_where_they_should_be(experiment, base_seed, tmp_path):
    config = dataclasses.replace(experiment.quick, base_seed=base_seed)
    result = runner.run(experiment, config, folder=tmp_path)
    verdict = verify.verdict(experiment, result)
    failed = [
        f"{check.name}: {check.measured:.5g}, expected {verify.target(check)}"
        for check in verdict.checks
        if not check.passed
    ]
    assert verdict.checks and not failed, "\n".join(failed)
    if base_seed == 0:
        files = plotting.write(experiment, result, tmp_path / "figures")
        assert all(path.stat().st_size > 0 for path in files)
