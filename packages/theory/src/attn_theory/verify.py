"""Tables of what was measured against what it should be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from .experiment import Check, Experiment, Result


@dataclass(frozen=True)
class Verdict:
    """The checks of one experiment's result."""

    experiment: Experiment
    result: Result
    checks: list[Check]

    @property
    def base_seed(self) -> int:
        """Of the random numbers; 0 where none are drawn."""
        return getattr(self.result.config, "base_seed", 0)

    @property
    def failed(self) -> int:
        """How many checks did not pass."""
        return sum(not check.passed for check in self.checks)


def verdict(experiment: Experiment, result: Result) -> Verdict:
    """Checks a result.

    Raises:
        ValueError: the result is incomplete, or is compared with nothing.
    """
    if not result.complete:
        raise ValueError(
            f"{experiment.name} has {len(result.parts)} of {result.total} points; run it to the end"
        )
    checks = experiment.checks(result)
    if not checks:
        raise ValueError(f"{experiment.name} has no check for this configuration")
    return Verdict(experiment, result, checks)


def target(check: Check) -> str:
    """The expectation in words.

    Example:
        >>> from attn_theory.experiment import close
        >>> target(close("slope", 1.9, 2.0, 0.2))
        '2 ± 0.2'
    """
    if check.relation == "~":
        return f"{check.expected:.5g} ± {check.tolerance:.2g}"
    return f"{check.relation} {check.expected:.5g}"


def outcome(check: Check) -> str:
    """How a check came out, in words.

    Example:
        >>> from attn_theory.experiment import at_most
        >>> outcome(at_most("error", 2.0, 1.0))
        '**fail**'
    """
    if check.deviation is None:
        return "pass" if check.passed else "**fail**"
    if check.known:
        band = f"{check.deviation.value:.3g} ± {check.deviation.tolerance:.2g}"
        return f"does not hold, as known ({band}): {check.deviation.reason}"
    return "**holds, but was known not to**" if check.holds else "**fails otherwise than known**"


def table(verdicts: Sequence[Verdict]) -> Table:
    """All checks as a table for the terminal."""
    out = Table("experiment", "what", "measured", "expected", "source", "")
    for v in verdicts:
        name = v.experiment.name + (f", base seed {v.base_seed}" if v.base_seed else "")
        for check in v.checks:
            color = "yellow" if check.known else "green" if check.passed else "red"
            mark = f"[{color}]{outcome(check).replace('*', '')}"
            out.add_row(
                name, check.name, f"{check.measured:.5g}", target(check), check.source, mark
            )
    return out


def markdown(verdicts: Sequence[Verdict]) -> str:
    """All checks as Markdown, a section per paper, each experiment with its command.

    Runs of one experiment with several base seeds stand side by side; what is expected is that of
    the first.
    """
    runs: dict[str, list[Verdict]] = {}
    for v in verdicts:
        runs.setdefault(v.experiment.name, []).append(v)
    lines: list[str] = []
    paper = None
    for same in runs.values():
        first = same[0]
        if first.experiment.paper != paper:
            paper = first.experiment.paper
            lines += [f"## {paper}", ""]
        seeds = getattr(first.result.config, "seeds", 1)
        several = len(same) > 1
        measured = [f"base seed {v.base_seed}" for v in same] if several else ["measured"]
        heads = ["what", *measured, "expected", "source", ""]
        lines += [
            f"### {first.experiment.name.partition('.')[2]}",
            "",
            first.experiment.title,
            "",
            f"`attn-theory run {first.experiment.name}`; {seeds} seed(s), "
            + ", ".join(f"{v.result.seconds:.0f} s, key `{v.result.key}`" for v in same),
            "",
            f"| {' | '.join(heads)} |",
            "|---" * len(heads) + "|",
            *_rows(same),
            "",
        ]
    return "\n".join(lines)


def _rows(same: Sequence[Verdict]) -> Iterator[str]:
    """A row per check; the checks of base seeds that it lacks are missing from it."""
    by_seed = [{check.name: check for check in v.checks} for v in same]
    for name in dict.fromkeys(name for checks in by_seed for name in checks):
        found = [checks.get(name) for checks in by_seed]
        present = [check for check in found if check is not None]
        values = ["" if check is None else f"{check.measured:.5g}" for check in found]
        said = " / ".join(dict.fromkeys(outcome(check) for check in present))
        cells = [name.replace("|", "\\|"), *values, target(present[0]), present[0].source, said]
        yield f"| {' | '.join(cells)} |"
