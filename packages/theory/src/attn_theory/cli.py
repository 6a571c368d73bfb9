"""The command line: list, run, figure, gallery, verify."""

import argparse
import dataclasses
import sys
import typing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from core_attn.cli import exit_code

from . import gallery, plotting, runner, verify
from .experiment import Experiment
from .papers import PAPERS, find, select


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, 1 (a check failed), 2 (wrong call).

    A wrong call is told in one line; an error of the program keeps its traceback.

    Example:
        >>> main(["run", "no.such"])
        2
    """
    return exit_code("attn_theory", arguments, _run_command)


def _run_command(words: list[str]) -> int:
    options = _parser().parse_args(words)
    try:
        return options.command(options, Console())
    except KeyboardInterrupt:
        print("\nstopped; what was measured is kept, the same command goes on", file=sys.stderr)
        raise


def configured(experiment: Experiment, options: argparse.Namespace) -> Any:
    """The experiment's configuration with the changes asked for on the command line.

    Raises:
        ValueError: a key that the experiment lacks, or a value of the wrong type.
    """
    config = experiment.config
    if options.quick:
        if experiment.quick is None:
            raise ValueError(f"{experiment.name} has no quick form; run it without --quick")
        config = experiment.quick
    changes: dict[str, Any] = {}
    types = typing.get_type_hints(type(config))
    for item in options.changes:
        name, equals, text = item.partition("=")
        if not equals or name not in types:
            allowed = ", ".join(f.name for f in dataclasses.fields(config))
            raise ValueError(
                f"{item!r} is not key=value with a key of {experiment.name}: {allowed}"
            )
        changes[name] = parse(text, types[name], name)
    if options.seeds is not None:
        changes["seeds"] = options.seeds
    if options.device is not None:
        changes["device"] = options.device
    if options.base_seed:
        changes["base_seed"] = options.base_seed
    return dataclasses.replace(config, **changes)


def parse(text: str, kind: Any, name: str = "value") -> Any:
    """Reads a value of a configuration; several are separated by commas.

    Raises:
        ValueError: it is not of that kind.

    Example:
        >>> parse("1,2", tuple[int, ...])
        (1, 2)
    """
    if typing.get_origin(kind) is tuple:
        return tuple(parse(part, typing.get_args(kind)[0], name) for part in text.split(","))
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, got {text!r}")
        return text == "true"
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{name} must be {kind.__name__}, got {text!r}") from error


def _list(options: argparse.Namespace, console: Console) -> int:
    for paper in PAPERS.values():
        table = Table("experiment", "shows", "about", title=f"{paper.title} (arXiv {paper.arxiv})")
        for experiment in paper.experiments:
            table.add_row(experiment.name, experiment.title, f"{experiment.budget:.0f} s")
        console.print(table)
    return 0


def _run(options: argparse.Namespace, console: Console) -> int:
    experiment = find(options.experiment)
    config = configured(experiment, options)
    [result] = runner.run_all([(experiment, config)], folder=options.runs)
    where = runner.store.path(options.runs, experiment, config)
    console.print(f"{where}.npz and .json, {result.seconds:.1f} s of measuring", soft_wrap=True)
    if config in (experiment.config, experiment.quick):
        console.print(verify.table([verify.verdict(experiment, result)]))
    return 0


def _figure(options: argparse.Namespace, console: Console) -> int:
    jobs = _jobs(options)
    results = runner.run_all(jobs, folder=options.runs, processes=options.jobs)
    for (experiment, _), result in zip(jobs, results, strict=True):
        files = plotting.write(experiment, result, options.out)
        console.print(str(files[0]), soft_wrap=True)
    return 0


def _verify(options: argparse.Namespace, console: Console) -> int:
    jobs = _jobs(options)
    results = runner.run_all(jobs, folder=options.runs, processes=options.jobs)
    verdicts = [
        verify.verdict(experiment, result)
        for (experiment, _), result in zip(jobs, results, strict=True)
    ]
    console.print(verify.table(verdicts))
    failed, total = sum(v.failed for v in verdicts), sum(len(v.checks) for v in verdicts)
    known = sum(check.known for v in verdicts for check in v.checks)
    console.print(
        f"{total - failed - known} of {total} claims hold, {known} fail as known, "
        f"{failed} checks failed"
    )
    if options.markdown is not None:
        options.markdown.write_text(verify.markdown(verdicts))
    return 1 if failed else 0


def _gallery(options: argparse.Namespace, console: Console) -> int:
    jobs = _jobs(options)
    results = runner.run_all(jobs, folder=options.runs, processes=options.jobs)
    by_name = {result.experiment: result for result in results}
    for name in dict.fromkeys(experiment.paper for experiment, _ in jobs):
        console.print(str(gallery.write(PAPERS[name], by_name, options.out)), soft_wrap=True)
    return 0


def _jobs(options: argparse.Namespace) -> list[tuple[Experiment, Any]]:
    jobs = [(e, e.quick if options.quick else e.config) for e in select(options.paper)]
    return [
        (experiment, dataclasses.replace(config, base_seed=options.base_seed))
        for experiment, config in jobs
        if config is not None
    ]


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like any other, told in one line."""

    def error(self, message: str) -> typing.NoReturn:
        """Raises."""
        raise argparse.ArgumentError(None, message)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="attn-theory", description="Five theory papers on attention, re-run in full."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, function, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        if name != "list":
            sub.add_argument("--runs", type=Path, default=Path("runs/theory"), help="results")
            sub.add_argument("--quick", action="store_true", help="the small form of each run")
            sub.add_argument("--base-seed", type=int, default=0, help="other random numbers")
        return sub

    command("list", _list, "List the papers and their experiments.")
    run = command("run", _run, "Run one experiment; an interrupted run goes on where it stopped.")
    run.add_argument("experiment", help="<paper>.<experiment>, from `attn-theory list`")
    run.add_argument("changes", nargs="*", metavar="key=value", help="changes to its configuration")
    run.add_argument("--seeds", type=int, help="number of seeds")
    run.add_argument("--device", help="torch device")
    figure = command("figure", _figure, "Draw a paper's figures, running what has not been run.")
    figure.add_argument("--out", type=Path, default=Path("figures"), help="folder for the figures")
    pages = command("gallery", _gallery, "Write a page per paper with its figures.")
    pages.add_argument("--out", type=Path, default=Path("gallery"), help="folder for the pages")
    check = command("verify", _verify, "Compare every number with what it should be.")
    check.add_argument("--full", dest="quick", action="store_false", help="the full runs")
    check.set_defaults(quick=True)
    check.add_argument("--markdown", type=Path, help="also write the table to this file")
    for sub in (figure, pages, check):
        default = "all" if sub is check else None
        sub.add_argument(
            "paper", nargs="?" if default else None, default=default,
            help="a paper, an experiment, or all",
        )  # fmt: skip
        sub.add_argument("--jobs", type=int, default=1, help="experiments at a time")
    return parser


if __name__ == "__main__":
    sys.exit(main())
