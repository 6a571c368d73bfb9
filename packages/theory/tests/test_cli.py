import dataclasses
import json

import pytest

from attn_theory import gallery, runner
from attn_theory.cli import main, parse
from attn_theory.papers import PAPERS, find


def call(tmp_path, *arguments):
    return main([*arguments, "--runs", str(tmp_path / "runs")])


def test_list_names_every_paper(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "icl_linear.estimators" in out and "2308.04106" in out


def test_run_writes_results_and_the_same_command_reads_them(tmp_path, capsys):
    arguments = ("run", "pavlov_memory.conditioning", "trials=60", "rate=0.3")
    assert call(tmp_path, *arguments) == 0
    [file] = (tmp_path / "runs" / "pavlov_memory").glob("conditioning-*.json")
    assert json.loads(file.read_text())["config"]["trials"] == 60
    before = file.stat().st_mtime_ns
    assert call(tmp_path, *arguments) == 0
    assert file.stat().st_mtime_ns == before


def test_figure_writes_picture_vector_data_and_caption(tmp_path):
    out = tmp_path / "figures"
    arguments = ("figure", "pavlov_memory.conditioning", "--out", str(out))
    assert call(tmp_path, *arguments) == 0
    names = {path.name for path in (out / "pavlov_memory").iterdir()}
    assert names == {f"conditioning.{suffix}" for suffix in ("png", "svg", "npz", "json")}


def test_gallery_writes_a_page_with_small_pictures(tmp_path):
    paper = PAPERS["pavlov_memory"]
    chosen = tuple(find(f"pavlov_memory.{name}") for name in ("conditioning", "reliability"))
    results = {e.name: runner.run(e, e.quick, folder=tmp_path) for e in chosen}
    page = gallery.write(dataclasses.replace(paper, experiments=chosen), results, tmp_path)
    text = page.read_text()
    assert "img/pavlov_memory/conditioning.png" in text and paper.notes in text
    sizes = [path.stat().st_size for path in tmp_path.glob("img/pavlov_memory/*.png")]
    assert len(sizes) == 2 and max(sizes) < 100_000


def test_verify_passes_and_writes_its_table(tmp_path):
    table = tmp_path / "table.md"
    arguments = ("verify", "pavlov_memory.conditioning", "--markdown", str(table))
    assert call(tmp_path, *arguments) == 0
    assert "blocking" in table.read_text()


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
        (("run", "icl_linear.flow", "speed=3"), "'speed=3' is not key=value with a key of"),
        (("run", "icl_linear.flow", "steps=many"), "steps must be int, got 'many'"),
        (("run", "icl_linear.flow", "--seeds", "0"), "seeds must be at least 1"),
        (("run", "icl_linear.heads", "--quick"), "no quick form"),
        (("figure", "nothing"), "no experiment 'nothing'"),
        (("figur",), "invalid choice: 'figur'"),
        (("run",), "arguments are required: experiment"),
        (("list", "--full"), "unrecognized arguments: --full"),
    ],
)
def test_a_wrong_call_ends_in_one_line(tmp_path, capsys, arguments, message):
    assert call(tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


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
