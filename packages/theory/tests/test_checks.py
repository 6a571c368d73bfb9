"""A check can pass, fail, fail as known, and hold although it was known not to."""

import dataclasses
import math

import pytest
from matplotlib.figure import Figure

from attn_theory import store, verify
from attn_theory.catalog import Entry
from attn_theory.experiment import Check, Config, Experiment, at_most, close
from attn_theory.tables import Tidy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeated(Config):
    seeds: int = 1


def known(measured: float) -> Check:
    return close("gap", measured, 0.0, 0.1, "abstract").deviates(0.5, 0.2, "few examples")


@pytest.mark.parametrize(
    "check, passed, words",
    [
        (close("x", 1.0, 1.1, 0.2), True, "pass"),
        (close("x", 1.0, 1.3, 0.2), False, "**fail**"),
        (known(0.6), True, "does not hold, as known (0.5 ± 0.2): few examples"),
        (known(0.05), False, "**holds, but was known not to**"),
        (known(0.9), False, "**fails otherwise than known**"),
        (known(math.nan), False, "**fails otherwise than known**"),
        (at_most("x", 2.0, 1.0).deviates(2.1, 0.2, "r"), True, "does not hold, as known"),
    ],
)
def test_a_check_is_told_as_it_came_out(check, passed, words):
    assert check.passed == passed
    assert verify.outcome(check).startswith(words)


def test_no_check_at_all_is_an_error():
    empty = Experiment(
        Entry("test.empty", "Nothing.", "ours", 1.0), Config(), Config(),
        lambda config, point: {}, lambda result: [], lambda result: Figure(), Tidy({}),
    )  # fmt: skip
    result = store.new(empty, Config())
    result.parts = [{}]
    with pytest.raises(ValueError, match=r"test\.empty has no check"):
        verify.verdict(empty, result)


def test_a_base_seed_moves_every_stream():
    first, second = Repeated(seeds=3), Repeated(seeds=3, base_seed=1)
    assert list(first.streams) == [0, 1, 2] and list(second.streams) == [1000, 1001, 1002]
    assert not set(first.streams) & set(dataclasses.replace(second, seeds=1000).streams)
    with pytest.raises(ValueError, match="base_seed must be at least 0"):
        Config(base_seed=-1)
