"""The command line: list, show, run, sweep, figure, gallery, verify.

What `list` and `--help` need is words alone; torch and numpy are loaded by the other commands.
"""

import argparse
import os
import sys
import typing
from pathlib import Path

from . import catalog

if typing.TYPE_CHECKING:
    from .experiment import Experiment, Result

ROWS = 40


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, 1 (a check failed), 2 (wrong call).

    A wrong call is told in one line; an error of the program keeps its traceback.

    Example:
        >>> main(["run", "no.such"])
        2
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words == ["list"] or words[-1] in ("-h", "--help"):
        try:
            options = _parsed(words or ["--help"])
            return options.command(options)
        except SystemExit as stop:
            return int(stop.code or 0)
        except BrokenPipeError:  # the reader, as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except argparse.ArgumentError:
            pass  # told below, as every error is
    from core_attn.cli import exit_code

    return exit_code("attn_theory", words, _run_command)


def _parsed(words: list[str]) -> argparse.Namespace:
    """The options; changes may stand before and after them, where argparse sees the first alone."""
    options, rest = _parser().parse_known_args(words)
    changes = [word for word in rest if not word.startswith("-")]
    if len(changes) < len(rest) or (changes and not hasattr(options, "changes")):
        raise argparse.ArgumentError(None, f"unrecognized arguments: {' '.join(rest)}")
    if changes:
        options.changes = [*options.changes, *changes]
    return options


def _run_command(words: list[str]) -> int:
    options = _parsed(words)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("\nstopped; what was measured is kept, the same command goes on", file=sys.stderr)
        raise


def _list(options: argparse.Namespace) -> int:
    for source in catalog.SOURCES.values():
        print(f"{source.title} ({source.authors}, arXiv {source.arxiv})\n")
        width = max(len(entry.name) for entry in source.entries)
        for entry in source.entries:
            print(f"  {entry.name:<{width}}  {entry.seconds:>4.0f} s  {entry.title}")
        print()
    return 0


def _show(options: argparse.Namespace) -> int:
    from rich.table import Table

    from .configure import configured, parameters
    from .runner import duration

    experiment = _find(options.experiment)
    config = configured(experiment, options.changes, quick=options.quick)
    print(f"{experiment.name}: {experiment.title}\nbelongs to: {experiment.entry.claim}")
    table = Table("parameter", "type", "value", "symbol", "unit", "allowed", "meaning")
    for row in parameters(config, experiment.paper):
        table.add_row(*row)
    _console().print(table)
    points = len(experiment.points(config))
    print(f"about {duration(experiment.seconds(config))} on one core, {points} point(s)")
    return 0


def _run(options: argparse.Namespace) -> int:
    from . import runner, store, verify
    from .configure import configured

    experiment = _find(options.experiment)
    config = configured(
        experiment, options.changes, quick=options.quick, seeds=options.seeds,
        device=options.device, base_seed=options.base_seed,
    )  # fmt: skip
    [result] = runner.run_all([(experiment, config)], folder=options.runs)
    _print_table(experiment, result)
    _say_where(experiment, result, store.path(options.runs, experiment, config))
    if config in (experiment.config, experiment.quick):
        _console().print(verify.table([verify.verdict(experiment, result)]))
    return 0


def _print_table(experiment: "Experiment", result: "Result") -> None:
    import polars as pl

    from . import tables

    table = tables.summary(experiment.tidy, tables.frame(experiment.tidy, result))
    with pl.Config(
        tbl_rows=ROWS, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True,
        float_precision=5, tbl_width_chars=200, tbl_formatting="UTF8_BORDERS_ONLY",
    ):  # fmt: skip
        print(table)
    if len(table) > ROWS:
        print(f"{len(table)} rows in all: `attn-theory figure {experiment.name}` writes them")


def _say_where(experiment: "Experiment", result: "Result", where: Path) -> None:
    how = "read, measured earlier in" if result.cached else "measured in"
    print(f"{where}.npz and .json, {how} {result.seconds:.1f} s")


def _sweep(options: argparse.Namespace) -> int:
    from . import runner, sweeps

    experiment = _find(options.experiment)
    configs = sweeps.configurations(experiment, options.changes, quick=options.quick)
    out = options.out or Path(f"{experiment.entry.short}-sweep.csv")
    sweeps.check_writable(out)
    jobs = [(experiment, config) for _, config in configs]
    results = runner.run_all(jobs, folder=options.runs, processes=options.jobs)
    changes = [change for change, _ in configs]
    table = sweeps.table(experiment, changes, results)
    table.write_csv(out)
    cached = sum(result.cached for result in results)
    print(f"{out}: {len(table)} rows of {len(configs)} configurations, {cached} of them read")
    return 0


def _figure(options: argparse.Namespace) -> int:
    from . import plotting, runner, sweeps

    jobs = _jobs(options)
    sweeps.check_folder(options.out)
    results = runner.run_all(jobs, folder=options.runs, processes=options.jobs)
    for (experiment, _), result in zip(jobs, results, strict=True):
        print(plotting.write(experiment, result, options.out)[0])
    return 0


def _verify(options: argparse.Namespace) -> int:
    from . import runner, sweeps, verify

    jobs = _jobs(options)
    if options.markdown is not None:
        sweeps.check_writable(options.markdown)
    results = runner.run_all(jobs, folder=options.runs, processes=options.jobs)
    verdicts = [
        verify.verdict(experiment, result)
        for (experiment, _), result in zip(jobs, results, strict=True)
    ]
    _console().print(verify.table(verdicts))
    failed, total = sum(v.failed for v in verdicts), sum(len(v.checks) for v in verdicts)
    known = sum(check.known for v in verdicts for check in v.checks)
    print(
        f"{total - failed - known} of {total} claims hold, {known} fail as known, "
        f"{failed} checks failed"
    )
    if options.markdown is not None:
        options.markdown.write_text(verify.markdown(verdicts))
    return 1 if failed else 0


def _gallery(options: argparse.Namespace) -> int:
    from . import gallery, papers, runner, sweeps

    jobs = _jobs(options)
    sweeps.check_folder(options.out)
    partial = {e.paper for e, _ in jobs if len(papers.paper(e.paper).experiments) > sum(
        other.paper == e.paper for other, _ in jobs)}  # fmt: skip
    if partial:
        raise ValueError(f"a page is of a whole paper; ask for {', '.join(sorted(partial))} or all")
    results = runner.run_all(jobs, folder=options.runs, processes=options.jobs)
    by_name = {result.experiment: result for result in results}
    for name in dict.fromkeys(experiment.paper for experiment, _ in jobs):
        print(gallery.write(papers.paper(name), by_name, options.out))
    return 0


def _find(name: str) -> "Experiment":
    from . import papers

    return papers.find(name)


def _jobs(options: argparse.Namespace) -> list[tuple["Experiment", typing.Any]]:
    """The experiments asked for with their configurations; at least one."""
    from . import papers
    from .configure import configured

    changes = getattr(options, "changes", [])
    experiments = papers.select(options.paper)
    if changes and len(experiments) > 1:
        raise ValueError(
            f"key=value changes one experiment, and {options.paper} has {len(experiments)}"
        )
    if len(experiments) > 1 and options.quick:
        experiments = [e for e in experiments if e.quick is not None]
    if not experiments:
        raise ValueError(f"{options.paper} has no quick form; run it without --quick")
    several = len(experiments) > 1
    jobs = []
    for experiment in experiments:
        seeds = options.base_seed if isinstance(options.base_seed, list) else [options.base_seed]
        # Over several experiments the seed is for those that draw random numbers.
        if several and not hasattr(experiment.config, "base_seed"):
            seeds = [None]
        jobs += [
            (experiment, configured(experiment, changes, quick=options.quick, base_seed=seed))
            for seed in dict.fromkeys(seeds)
        ]
    return jobs


def _console():
    from rich.console import Console

    return Console()


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
        if name not in ("list", "show"):
            sub.add_argument("--runs", type=Path, default=Path("runs/theory"), help="results")
        if name != "list":
            sub.add_argument("--quick", action="store_true", help="the small form of each run")
        return sub

    command("list", _list, "List the papers and their experiments.")
    show = command("show", _show, "Say what an experiment can be told, and how long it takes.")
    run = command("run", _run, "Run one experiment; an interrupted run goes on where it stopped.")
    sweep = command("sweep", _sweep, "Run an experiment at every combination of values.")
    figure = command("figure", _figure, "Draw figures, running what has not been run.")
    pages = command("gallery", _gallery, "Write a page per paper with its figures.")
    check = command("verify", _verify, "Compare every number with what it should be.")
    for sub in (show, run, sweep):
        sub.add_argument("experiment", help="<paper>.<experiment>, from `attn-theory list`")
    several = "a change; several values of one parameter are separated by commas"
    for sub in (show, run):
        sub.add_argument("changes", nargs="*", metavar="key=value", help=several)
    sweep.add_argument(
        "changes", nargs="*", metavar="key=value",
        help="values to combine, separated by commas; by ; where a parameter has several",
    )  # fmt: skip
    sweep.add_argument("--out", type=Path, help="the table; <experiment>-sweep.csv by default")
    run.add_argument("--seeds", type=int, help="number of repetitions")
    run.add_argument("--device", help="torch device")
    figure.add_argument("--out", type=Path, default=Path("figures"), help="folder for the figures")
    pages.add_argument("--out", type=Path, default=Path("gallery"), help="folder for the pages")
    check.add_argument("--full", dest="quick", action="store_false", help="the full runs")
    check.set_defaults(quick=True)
    check.add_argument("--markdown", type=Path, help="also write the table to this file")
    for sub in (figure, pages, check):
        sub.add_argument(
            "paper", nargs="?" if sub is check else None, default="all" if sub is check else None,
            help="a paper, an experiment, or all",
        )  # fmt: skip
    figure.add_argument(
        "changes", nargs="*", metavar="key=value", help=f"{several}; of one experiment only"
    )
    for sub in (sweep, figure, pages, check):
        sub.add_argument("--jobs", type=int, default=1, help="experiments at a time")
    for sub in (run, figure, pages):
        sub.add_argument("--base-seed", type=int, help="other random numbers")
    check.add_argument("--base-seed", type=int, nargs="+", help="other random numbers, one or more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
