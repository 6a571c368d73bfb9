"""Pages for the documentation: a paper's figures with what they show and how to make them."""

from io import BytesIO
from pathlib import Path

import matplotlib
from PIL import Image

from . import plotting, verify
from .experiment import Experiment, Paper, Result

DPI = 80


def write(paper: Paper, results: dict[str, Result], folder: Path) -> Path:
    """Writes `<folder>/<paper>.md` and its pictures under `<folder>/img`.

    Args:
        paper: whose page.
        results: complete results by experiment name.
        folder: of the pages.
    """
    lines = [f"# {paper.title}", "", f"arXiv [{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})"]
    lines += ["", paper.notes, "", f"All figures: `attn-theory figure {paper.name}`.", ""]
    for experiment in paper.experiments:
        result = results[experiment.name]
        name = experiment.name.partition(".")[2]
        picture = Path("img", paper.name, f"{name}.png")
        _picture(experiment, result, Path(folder, picture))
        judged = verify.verdict(experiment, result)
        passed = sum(check.holds for check in judged.checks)
        lines += [
            f"## {name.replace('_', ' ')}",
            "",
            experiment.title,
            "",
            f"![{experiment.title}]({picture})",
            "",
            f"`attn-theory run {experiment.name}`: {passed} of {len(judged.checks)} claims hold, "
            f"{result.config.seeds} seed(s).",
            "",
        ]
        lines += [
            f"- {check.name}: {check.measured:.4g}, expected {verify.target(check)} "
            f"({check.source}); {verify.outcome(check)}"
            for check in judged.checks
            if check.known or not check.passed
        ]
        lines.append("")
    page = Path(folder, f"{paper.name}.md")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines).rstrip() + "\n")
    return page


def _picture(experiment: Experiment, result: Result, path: Path) -> None:
    """A small PNG: a palette of 64 colours is enough for plots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    memory = BytesIO()
    with matplotlib.rc_context(plotting.STYLE):
        experiment.draw(result).savefig(memory, format="png", dpi=DPI)
    Image.open(memory).convert("RGB").quantize(64).save(path, optimize=True)
