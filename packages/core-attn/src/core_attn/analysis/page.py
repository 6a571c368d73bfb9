"""One self-contained, interactive HTML page about the attention of a vision transformer."""

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("page.html.jinja")


@dataclass
class Section:
    """One view: figures with captions, in the order they are read."""

    title: str
    text: str = ""
    figures: list[tuple[str, str, "Figure"]] = field(default_factory=list)


@dataclass
class Dots:
    """A scatter plot whose dots tell what they are.

    Attributes:
        title: a few words.
        caption: what to see in it.
        axes: names of the two axes.
        points: x, y, color number, what to say, and the image it belongs to (or None).
        diagonal: whether x = y is drawn.
    """

    title: str
    caption: str
    axes: tuple[str, str]
    points: Sequence[tuple[float, float, int, str, int | None]]
    diagonal: bool = False


@dataclass
class Picker:
    """Weights of some heads on some images, for the reader to choose a query.

    Attributes:
        grid: rows and columns of patches.
        images: numbers of the images, as in the page's thumbnails.
        heads: what each head is called.
        maps: weights among patches.
        query: the patch chosen at first, in raster order.
    """

    grid: tuple[int, int]
    images: Sequence[int]
    heads: Sequence[str]
    maps: Float[Tensor, "images heads patches patches"]
    query: int


def write_page(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    thumbnails: Sequence[tuple[str, bytes]],
    heads: pl.DataFrame,
    sections: Sequence[Section],
    dots: Sequence[Dots],
    picker: Picker | None,
) -> None:
    """Writes the page; it needs no network, and is either whole or not there.

    Args:
        path: the file.
        title: of the page.
        facts: what was looked at, by name.
        thumbnails: caption and PNG of each image.
        heads: a row per head; the page sorts it by any column.
        sections: figures.
        dots: interactive scatter plots.
        picker: for a query's weights over an image.
    """
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    html = page.render(
        title=title,
        facts=facts,
        thumbnails=[(text, base64.b64encode(png).decode()) for text, png in thumbnails],
        columns=heads.columns,
        rows=[[_cell(cell) for cell in row] for row in heads.rows()],
        sections=[
            (
                section.title,
                section.text,
                [(name, text, png(figure)) for name, text, figure in section.figures],
            )
            for section in sections
        ],
        dots=_script([vars(plot) for plot in dots]),
        picker=_script(None if picker is None else _packed(picker)),
    )
    part = path.with_name(f"{path.name}.part")
    part.write_text(html, encoding="utf-8")
    os.replace(part, path)


def png(figure: "Figure") -> str:
    """A figure as PNG, in base64."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return base64.b64encode(file.getvalue()).decode()


def _script(value: Any) -> str:
    """JSON that may stand inside of a script: a file's name cannot end it."""
    return json.dumps(value).replace("<", "\\u003c")


def _packed(picker: Picker) -> dict[str, Any]:
    """Each map in bytes, on the scale of its largest weight."""
    top = picker.maps.amax((-1, -2), keepdim=True).clamp(min=1e-12)
    levels = (picker.maps / top * 255).round().to(torch.uint8)
    return {
        "grid": picker.grid,
        "images": list(picker.images),
        "heads": list(picker.heads),
        "query": picker.query,
        "top": top.flatten(1).tolist(),
        "maps": [
            [base64.b64encode(one.numpy().tobytes()).decode() for one in image] for image in levels
        ],
    }


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
