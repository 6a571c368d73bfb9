"""Pages for the documentation: a paper's figures with what they show and how to make them."""

from dataclasses import fields
from io import BytesIO
from pathlib import Path

import matplotlib
from PIL import Image

from . import plotting, verify
from .experiment import Experiment, Paper, Result
from .glossary import quantities

DPI = 80


def introduction(paper: Paper) -> list[str]:
    """What a page says before its figures: notes, laws, symbols, and what belongs to what.

    Example:
        >>> from attn_theory.papers import paper
        >>> introduction(paper("pavlov_memory"))[0]
        '# Understanding Transformers through the Lens of Pavlovian Conditioning'
    """
    source = paper.source
    lines = [f"# {source.title}", ""]
    lines += [f"{source.authors}, arXiv [{source.arxiv}](https://arxiv.org/abs/{source.arxiv})"]
    lines += ["", paper.notes, "", f"All figures: `attn-theory figure {source.name}`.", ""]
    lines += ["## Laws", ""]
    for name, formula in paper.formulas:
        lines += [f"{name}:", "", f"$$\n{formula}\n$$", ""]
    lines += ["## Symbols", "", "| parameter | symbol | meaning | unit | allowed |"]
    lines += ["|---|---|---|---|---|", *_symbols(paper), ""]
    lines += ["## Experiments", "", "The paper's figure and theorem numbers were not at hand: each "
              "experiment stands beside the claim, or figure of the authors' code, it belongs to.",
              "", "| experiment | belongs to |", "|---|---|"]  # fmt: skip
    lines += [f"| [{e.entry.short}](#{e.entry.short}) | {e.entry.claim} |"
              for e in paper.experiments]  # fmt: skip
    return [*lines, ""]


def write(paper: Paper, results: dict[str, Result], folder: Path) -> Path:
    """Writes `<folder>/<paper>.md` and its pictures under `<folder>/img`.

    Args:
        paper: whose page.
        results: complete results by experiment name.
        folder: of the pages.
    """
    source, lines = paper.source, introduction(paper)
    for experiment in paper.experiments:
        result = results[experiment.name]
        name = experiment.entry.short
        picture = Path("img", source.name, f"{name}.png")
        _picture(experiment, result, Path(folder, picture))
        judged = verify.verdict(experiment, result)
        passed = sum(check.holds for check in judged.checks)
        lines += [
            f"## {name.replace('_', ' ')} {{ #{name} }}",
            "",
            experiment.title,
            "",
            f"![{experiment.title}]({picture})",
            "",
            f"Belongs to: {experiment.entry.claim}.",
            "",
            f"`attn-theory run {experiment.name}`: {passed} of {len(judged.checks)} claims hold.",
            "",
        ]
        lines += [
            f"- {check.name}: {check.measured:.4g}, expected {verify.target(check)} "
            f"({check.source}); {verify.outcome(check)}"
            for check in judged.checks
            if check.known or not check.passed
        ]
        lines.append("")
    page = Path(folder, f"{source.name}.md")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines).rstrip() + "\n")
    return page


def _symbols(paper: Paper) -> list[str]:
    """A row per parameter of the paper's experiments."""
    known = quantities(paper.source.name)
    names = {field.name for e in paper.experiments for field in fields(e.config)}
    rows = []
    for name, quantity in known.items():
        if name in names:
            symbol = f"${quantity.symbol}$" if quantity.symbol else ""
            allowed = "" if name == "device" else str(quantity.allowed)
            rows.append(f"| `{name}` | {symbol} | {_cell(quantity.meaning)} | {quantity.unit} "
                        f"| {allowed} |")  # fmt: skip
    return rows


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _picture(experiment: Experiment, result: Result, path: Path) -> None:
    """A small PNG: a palette of 64 colors is enough for plots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    memory = BytesIO()
    with matplotlib.rc_context(plotting.STYLE):
        experiment.draw(result).savefig(memory, format="png", dpi=DPI)
    Image.open(memory).convert("RGB").quantize(64).save(path, optimize=True)
