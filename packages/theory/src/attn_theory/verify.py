"""Tables of what was measured against what it should be."""

from collections.abc import Sequence
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
        for check in v.checks:
            color = "yellow" if check.known else "green" if check.passed else "red"
            mark = f"[{color}]{outcome(check).replace('*', '')}"
            out.add_row(
                v.experiment.name, check.name, f"{check.measured:.5g}", target(check),
                check.source, mark,
            )  # fmt: skip
    return out


def markdown(verdicts: Sequence[Verdict]) -> str:
    """All checks as Markdown, a section per paper, each experiment with its command."""
    lines: list[str] = []
    paper = None
    for v in verdicts:
        if v.experiment.paper != paper:
            paper = v.experiment.paper
            lines += [f"## {paper}", ""]
        seeds = getattr(v.result.config, "seeds", 1)
        lines += [
            f"### {v.experiment.name.partition('.')[2]}",
            "",
            v.experiment.title,
            "",
            f"`attn-theory run {v.experiment.name}`; {seeds} seed(s), "
            f"{v.result.seconds:.0f} s, key `{v.result.key}`",
            "",
            "| what | measured | expected | source | |",
            "|---|---|---|---|---|",
            *(
                f"| {c.name.replace('|', chr(92) + '|')} | {c.measured:.5g} | {target(c)} "
                f"| {c.source} | {outcome(c)} |"
                for c in v.checks
            ),
            "",
        ]
    return "\n".join(lines)
