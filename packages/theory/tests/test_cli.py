import dataclasses
import json
import os
import subprocess
import sys

import polars as pl
import pytest

import attn_theory
from attn_theory import gallery, runner
from attn_theory.cli import main
from attn_theory.configure import parse
from attn_theory.papers import find, paper


def call(tmp_path, *arguments):
    return main([*arguments, "--runs", str(tmp_path / "runs")])


def test_list_names_every_paper(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "icl_linear.estimators" in out and "2308.04106" in out


@pytest.mark.parametrize("words", [["list"], ["--help"], ["run", "--help"], []])
def test_words_alone_need_neither_torch_nor_numpy(words):
    program = (
        "import sys; from attn_theory.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or len({'torch', 'numpy', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True)
    assert done.returncode == 0 and done.stdout


def test_show_explains_every_parameter_and_says_how_long_it_takes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["show", "icl_linear.heads", "steps=4000"]) == 0
    out = capsys.readouterr().out
    assert "variance of the noise" in out and "at least 0" in out and "4000" in out
    assert "authors' code, figure of the head count" in out
    assert "about 123 s on one core, 4 point(s)" in out


def test_run_prints_the_table_and_the_same_command_says_that_it_read_it(tmp_path, capsys):
    arguments = ("run", "pavlov_memory.reliability", "samples=60", "p=0.3")
    assert call(tmp_path, *arguments) == 0
    out = capsys.readouterr().out
    assert "works" in out and "layers" in out and "measured in" in out
    [file] = (tmp_path / "runs" / "pavlov_memory").glob("reliability-*.json")
    assert json.loads(file.read_text())["config"]["samples"] == 60
    before = file.stat().st_mtime_ns
    assert call(tmp_path, *arguments) == 0
    assert "read, measured earlier in" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == before


def test_figures_of_other_configurations_leave_the_full_one_alone(tmp_path):
    out, name = tmp_path / "figures", "pavlov_memory.reliability"
    assert call(tmp_path, "figure", name, "--out", str(out), "samples=50", "heads=1,2") == 0
    assert call(tmp_path, "figure", name, "--out", str(out), "--quick") == 0
    names = {path.name for path in (out / "pavlov_memory").iterdir()}
    suffixes = ("png", "svg", "pdf", "csv", "json")
    assert {f"reliability-quick.{suffix}" for suffix in suffixes} <= names
    assert len(names) == 10 and not any(name.startswith("reliability.") for name in names)


def test_sweep_puts_every_combination_into_one_table(tmp_path, capsys):
    out = tmp_path / "sweep.csv"
    arguments = ("samples=50,60", "heads=1;2,3", "layers=4", "--jobs", "2", "--out", str(out))
    assert call(tmp_path, "sweep", "pavlov_memory.reliability", *arguments) == 0
    table = pl.read_csv(out)
    assert table.columns == ["samples", "heads", "layers", "works", "error", "law"]
    assert table["samples"].to_list() == [50, 50, 50, 60, 60, 60]
    assert table["heads"].to_list() == [1, 2, 3, 1, 2, 3]
    assert "6 rows of 4 configurations, 0 of them read" in capsys.readouterr().out


def test_measure_returns_the_table_of_any_configuration(tmp_path):
    table = attn_theory.measure(
        "icl_linear.heads", quick=True, noise=1.0, heads=[1], steps=2, prompts=10, folder=tmp_path
    )
    assert table["bayes"][0] == pytest.approx(1.12, abs=0.01)
    with pytest.raises(TypeError, match="noise must be float, got 'much'"):
        attn_theory.measure("icl_linear.heads", noise="much")


def test_gallery_writes_a_page_with_small_pictures(tmp_path):
    page_of = paper("pavlov_memory")
    chosen = tuple(find(f"pavlov_memory.{name}") for name in ("conditioning", "reliability"))
    results = {e.name: runner.run(e, e.quick, folder=tmp_path) for e in chosen}
    page = gallery.write(dataclasses.replace(page_of, experiments=chosen), results, tmp_path)
    text = page.read_text()
    assert "img/pavlov_memory/conditioning.png" in text and page_of.notes in text
    sizes = [path.stat().st_size for path in tmp_path.glob("img/pavlov_memory/*.png")]
    assert len(sizes) == 2 and max(sizes) < 100_000


def test_verify_passes_and_writes_its_table(tmp_path):
    table = tmp_path / "table.md"
    arguments = ("verify", "pavlov_memory.conditioning", "--markdown", str(table))
    assert call(tmp_path, *arguments) == 0
    assert "blocking" in table.read_text()


def test_verify_puts_several_base_seeds_into_one_table(tmp_path):
    table, name = tmp_path / "table.md", "pavlov_memory.reliability"
    arguments = ("verify", name, "--base-seed", "0", "1", "--markdown", str(table))
    assert call(tmp_path, *arguments) == 0
    assert "| what | base seed 0 | base seed 1 | expected |" in table.read_text()


def test_two_processes_give_the_same_as_one(tmp_path):
    experiments = [find(f"pavlov_memory.{name}") for name in ("conditioning", "reliability")]
    jobs = [(experiment, experiment.quick) for experiment in experiments]
    two = runner.run_all(jobs, folder=tmp_path / "two", processes=2)
    one = runner.run_all(jobs, folder=tmp_path / "one")
    for a, b in zip(one, two, strict=True):
        assert a.complete and b.complete
        for name, value in a.parts[0].items():
            assert (value == b.parts[0][name]).all(), name


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("run", "no.such"), "no experiment 'no.such'"),
        (("run", "icl_linear.nothing"), "icl_linear.estimators"),
        (("run", "icl_linear.flow", "speed=3"), "icl_linear.flow takes no speed: there are"),
        (("run", "icl_linear.flow", "speed"), "'speed' is not key=value with a key of"),
        (("run", "icl_linear.flow", "d=3", "d=4"), "d is given twice"),
        (("run", "icl_linear.flow", "steps=many"), "steps must be int, got 'many'"),
        (("run", "icl_linear.flow", "steps=0"), "steps must be at least 1, got 0"),
        (("run", "icl_linear.flow", "step=nan"), "step must be above 0, got nan"),
        (("run", "icl_linear.flow", "noise=-1"), "noise must be at least 0, got -1.0"),
        (("run", "icl_linear.flow", "--seeds", "0"), "seeds must be at least 1"),
        (("run", "icl_linear.flow", "--device", "cpu"), "takes no device: it does not compute"),
        (("run", "icl_linear.estimators", "--seeds", "3"), "takes no seeds: it has no repetitions"),
        (("run", "icl_linear.estimators", "batch=0"), "batch must be at least 1, got 0"),
        (("run", "icl_linear.estimators", "lengths="), "is not key=value with a key of"),
        (("run", "icl_linear.diabetes", "lengths=20,500"), "lengths must be at most 441"),
        (("run", "icl_linear.multitask", "support=7"), "support must be at most d = 6, got 7"),
        (("run", "icl_linear.heads", "lengths=20"), "lengths must contain length = 40"),
        (("run", "pavlov_memory.conditioning", "--base-seed", "1"), "it draws no random numbers"),
        (("run", "pavlov_memory.errors", "widths=-3"), "widths must be at least 2, got -3"),
        (("run", "pavlov_memory.depth", "chains=3,4,5"), "chains must be groups of four"),
        (("run", "pavlov_memory.trained", "pairs=65"), "pairs must be at most vocabulary = 64"),
        (
            ("run", "multitask_hebbian.dilution", "patterns=13"),
            "patterns must be at least 1 and at",
        ),
        (("run", "multitask_hebbian.dilution", "sweeps=3"), "sweeps must be at least 200, got 3"),
        (
            ("run", "multitask_hebbian.cost", "dilution=1"),
            "dilution must be at least 0 and below 1",
        ),
        (("run", "universal_approximation.maps", "degree=3"), "degree must be even"),
        (("figure", "nothing"), "no experiment 'nothing'"),
        (("figure", "icl_linear", "d=3"), "key=value changes one experiment"),
        (("figure", "icl_linear.flow", "--jobs", "0"), "jobs must be at least 1, got 0"),
        (("gallery", "icl_linear.flow"), "a page is of a whole paper"),
        (("sweep", "icl_linear.flow"), "name what to sweep"),
        (("sweep", "icl_linear.flow", "d=3", "--out", "no/such.csv"), "there is no folder no"),
        (("figur",), "invalid choice: 'figur'"),
        (("run",), "arguments are required: experiment"),
        (("list", "--full"), "unrecognized arguments: --full"),
    ],
)
def test_a_wrong_call_ends_in_one_line(tmp_path, capsys, arguments, message):
    assert call(tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_a_file_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "runs").write_text("")
    assert call(tmp_path, "run", "pavlov_memory.conditioning") == 2
    assert "cannot be a folder of results" in capsys.readouterr().err
    (tmp_path / "out").write_text("")
    arguments = ("figure", "pavlov_memory.conditioning", "--out", str(tmp_path / "out" / "x"))
    assert main([*arguments, "--runs", str(tmp_path / "other")]) == 2
    error = capsys.readouterr().err
    assert "cannot be a folder" in error and error.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_a_damaged_result_is_told_in_one_line(tmp_path, capsys):
    assert call(tmp_path, "run", "pavlov_memory.conditioning", "trials=3") == 0
    [file] = (tmp_path / "runs").rglob("*.npz")
    file.write_bytes(b"broken")
    capsys.readouterr()
    assert call(tmp_path, "run", "pavlov_memory.conditioning", "trials=3") == 2
    error = capsys.readouterr().err
    assert "is damaged" in error and error.count("\n") == 1


def test_an_error_of_the_program_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(*_, **__):
        return int("no number")

    monkeypatch.setattr(runner, "run_all", broken)
    with pytest.raises(ValueError, match="invalid literal"):
        call(tmp_path, "run", "pavlov_memory.conditioning")


def test_values_are_read_by_their_type():
    assert parse("1,2,3", tuple[int, ...]) == (1, 2, 3)
    assert parse("0.5", float) == 0.5
    assert parse("true", bool) is True
    with pytest.raises(ValueError, match="must be true or false"):
        parse("yes", bool)


def test_a_reader_that_has_seen_enough_is_no_error():
    shown = subprocess.Popen(
        [sys.executable, "-c", "import sys, attn_theory.cli as c; sys.exit(c.main(['list']))"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    shown.stdout.close()
    assert shown.stderr.read() == b"" and shown.wait() == 0
