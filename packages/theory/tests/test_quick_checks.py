"""Every experiment's small form: it runs, every number is where it should be, the figure draws."""

import dataclasses

import pytest

from attn_theory import plotting, runner, verify
from attn_theory.papers import select

STREAMS = [
    (experiment, base_seed)
    for experiment in select("all")
    for base_seed in ((0, 1) if hasattr(experiment.quick, "base_seed") else (None,))
]


@pytest.mark.parametrize(
    "experiment, base_seed",
    STREAMS,
    ids=[f"{experiment.name}-{seed}" for experiment, seed in STREAMS],
)
def test_numbers_are_where_they_should_be(experiment, base_seed, tmp_path):
    drawn = {} if base_seed is None else {"base_seed": base_seed}
    config = dataclasses.replace(experiment.quick, **drawn)
    result = runner.run(experiment, config, folder=tmp_path)
    verdict = verify.verdict(experiment, result)
    failed = [
        f"{check.name}: {check.measured:.5g}, expected {verify.target(check)}"
        for check in verdict.checks
        if not check.passed
    ]
    assert verdict.checks and not failed, "\n".join(failed)
    if not base_seed:
        files = plotting.write(experiment, result, tmp_path / "figures")
        assert all(path.stat().st_size > 0 for path in files)
