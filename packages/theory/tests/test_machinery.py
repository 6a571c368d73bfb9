import dataclasses
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from attn_theory import montecarlo, runner, store, verify
from attn_theory.catalog import SOURCES, Entry
from attn_theory.experiment import Check, Config, Experiment, at_least, at_most, close
from attn_theory.papers import find, select
from attn_theory.seeds import numpy_generator, torch_generator
from attn_theory.tables import Tidy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Squares(Config):
    seeds: int = 1
    numbers: tuple[int, ...] = (1, 2, 3)


class Counter:
    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def __call__(self, config, number):
        if number == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(number)
        return {"number": number, "square": np.array([number**2.0])}


def experiment(measure, revision=1):
    return Experiment(
        Entry("test.squares", "Squares.", "ours", 1.0), Squares(), None, measure,
        lambda result: [close("sum", result["square"].sum(), 14, 0.1)],
        lambda result: Figure(), Tidy({"number": "", "square": "root"}),
        points=lambda config: config.numbers, revision=revision,
    )  # fmt: skip


def test_a_result_is_measured_once_and_read_afterwards(tmp_path):
    measure = Counter()
    first = runner.run(experiment(measure), folder=tmp_path)
    again = runner.run(experiment(measure), folder=tmp_path)
    assert measure.calls == [1, 2, 3]
    assert again.complete and again["square"].tolist() == first["square"].tolist()


@pytest.mark.parametrize(
    "config, revision", [(Squares(numbers=(1, 2)), 1), (Squares(seeds=2), 1), (Squares(), 2)]
)
def test_a_changed_parameter_or_revision_is_measured_anew(tmp_path, config, revision):
    measure = Counter()
    runner.run(experiment(measure), folder=tmp_path)
    runner.run(experiment(measure, revision), config, folder=tmp_path)
    assert len(measure.calls) == 3 + len(config.numbers)


def test_an_interrupted_run_leaves_a_valid_part_and_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        runner.run(experiment(Counter(stop_at=3)), folder=tmp_path)
    stem = store.path(tmp_path, experiment(None), Squares())
    part = store.load(experiment(None), Squares(), stem)
    assert not part.complete and part["number"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="2 of 3 points"):
        verify.verdict(experiment(None), part)
    measure = Counter()
    assert runner.run(experiment(measure), folder=tmp_path).complete
    assert measure.calls == [3]


def test_the_json_beside_the_arrays_says_what_they_are(tmp_path):
    runner.run(experiment(Counter()), folder=tmp_path)
    [file] = tmp_path.glob("test/*.json")
    facts = json.loads(file.read_text())
    assert facts["config"]["numbers"] == [1, 2, 3]
    assert facts["complete"]
    assert set(facts["versions"]) >= {"torch", "numpy", "attn-theory", "core-attn", "python"}


def test_checks_know_their_relations():
    assert close("x", 1.0, 1.1, 0.2).passed and not close("x", 1.0, 1.3, 0.2).passed
    assert at_most("x", 1.0, 1.0).passed and not at_most("x", 1.1, 1.0).passed
    assert at_least("x", 1.0, 1.0).passed and not at_least("x", 0.9, 1.0).passed
    assert not Check("x", float("nan"), 0.0, 1.0, "derived").passed


def test_markdown_has_the_command_of_every_experiment(tmp_path):
    e = experiment(Counter())
    text = verify.markdown([verify.verdict(e, runner.run(e, folder=tmp_path))])
    assert (
        "`attn-theory run test.squares`" in text
        and "| sum | 14 | 14 ± 0.1 | derived | pass |" in text
    )


def test_markdown_puts_base_seeds_side_by_side(tmp_path):
    e = find("pavlov_memory.reliability")
    configs = [dataclasses.replace(e.quick, base_seed=seed) for seed in (0, 3)]
    verdicts = [verify.verdict(e, runner.run(e, config, folder=tmp_path)) for config in configs]
    text = verify.markdown(verdicts)
    assert "| what | base seed 0 | base seed 3 | expected | source |  |" in text
    assert text.count("\n|") == 2 + len(verdicts[0].checks)


def test_generators_depend_on_seed_and_purpose_alone():
    assert numpy_generator(3, "a").random() == numpy_generator(3, "a").random()
    assert numpy_generator(3, "a").random() != numpy_generator(4, "a").random()
    assert torch_generator(3, "a").initial_seed() != torch_generator(3, "b").initial_seed()


def test_average_equals_the_mean_of_all_batches():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(1000, 2))
    rows = iter(np.split(data, [300, 600, 900]))
    mean, error = montecarlo.average(lambda n: next(rows), 1000, 300)
    np.testing.assert_allclose(mean, data.mean(0))
    np.testing.assert_allclose(error, montecarlo.standard_error(data))


@pytest.mark.parametrize("samples", [0, 1])
def test_too_few_samples_have_no_error(samples):
    with pytest.raises(ValueError, match="at least 2 samples"):
        montecarlo.average(lambda n: np.zeros(n), samples, 10)


def test_names_are_found_and_unknown_ones_listed():
    assert {e.paper for e in select("all")} == set(SOURCES)
    assert select("icl_linear.flow") == [find("icl_linear.flow")]
    with pytest.raises(ValueError, match=r"icl_linear\.estimators"):
        find("icl_linear.nothing")
    with pytest.raises(ValueError, match="icl_linear, random_feature"):
        find("nothing")


def test_every_experiment_has_its_own_name_and_a_sentence():
    experiments = select("all")
    assert len({e.name for e in experiments}) == len(experiments)
    assert all(e.title.endswith(".") for e in experiments)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_in_one_line(device, tmp_path):
    experiment = find("pavlov_memory.errors")
    config = dataclasses.replace(experiment.quick, device=device)
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used here: .+") as caught:
        runner.run(experiment, config, folder=tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.npz"))


def test_seeds_are_at_least_one():
    with pytest.raises(ValueError, match="seeds must be at least 1"):
        Squares(seeds=0)


def test_a_failed_run_leaves_no_result_and_keeps_what_was_measured(tmp_path):
    def failing(config, number):
        if number == 3:
            raise RuntimeError("broken")
        return {"number": number, "square": np.array([1.0])}

    with pytest.raises(RuntimeError, match="broken"):
        runner.run(experiment(failing), folder=tmp_path)
    names = {path.name.partition(".")[2] for path in tmp_path.glob("test/*")}
    assert names == {"part.npz", "part.json"}


def test_a_result_says_whether_it_was_read(tmp_path):
    assert not runner.run(experiment(Counter()), folder=tmp_path).cached
    assert runner.run(experiment(Counter()), folder=tmp_path).cached


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_another_version_of_torch_or_numpy_measures_anew(name, tmp_path, monkeypatch):
    runner.run(experiment(Counter()), folder=tmp_path)
    other = store.versions() | {name: "0.0"}
    monkeypatch.setattr(store, "versions", lambda: other)
    assert not runner.run(experiment(Counter()), folder=tmp_path).cached


@pytest.mark.parametrize("damage", [b"", b"PK", b"{", b"[1, 2]"])
@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_damaged_result_is_told_by_its_name(damage, suffix, tmp_path):
    runner.run(experiment(Counter()), folder=tmp_path)
    [file] = tmp_path.glob(f"test/*{suffix}")
    file.write_bytes(damage)
    with pytest.raises(ValueError, match=r"squares-\w+\.npz or the json .* delete both"):
        runner.run(experiment(Counter()), folder=tmp_path)


def test_times_scale_with_the_work():
    heads = find("icl_linear.heads")
    twice = dataclasses.replace(heads.config, seeds=2 * heads.config.seeds)
    assert heads.seconds(heads.config) == heads.entry.seconds
    assert heads.seconds(twice) == pytest.approx(2 * heads.entry.seconds)
