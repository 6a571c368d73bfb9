"""Pictures of a trained click model: calibration, attention between fields, interacting pairs."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core_attn.taps import Mean, record
from core_attn.training import Exhibit

from . import metrics
from .data.batches import Batch
from .interactions import WIDE, candidates, interaction_strengths, lone_effects
from .models import AutoInt, Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .data import ClickData
    from .tasks import ClickTask

ROWS = 20_000
SHOWN = 40  # fields in a map
PAIRS = 400  # pairs whose strength is measured


def exhibits(task: "ClickTask", data: "ClickData", rows: int = ROWS) -> Iterator[Exhibit]:
    """Everything the report shows of a model, from the first rows of the test data.

    Args:
        task: trained.
        data: set up.
        rows: how many rows at most.
    """
    model = task.network_model()
    batches = list(_first(data.test_dataloader(), rows))
    label = torch.cat([batch["label"] for batch in batches]).numpy()
    with torch.no_grad():
        logits = torch.cat([task.logits(batch) for batch in batches])
        before = logits.sigmoid().double().numpy()
        calibrator = task.probability.calibrator
        p = before if calibrator is None else calibrator(logits).double().numpy()
    found = {"as trained": before} | ({} if calibrator is None else {calibrator.method: p})
    yield _quality(label, found)
    yield _calibration(label, found)
    yield _unseen(data)
    yield from _cold(data, batches, label, p)
    likely = np.zeros((model.layout.fields, model.layout.fields))
    if isinstance(model, AutoInt) and model.config.block_widths:
        maps = attention_maps(model, batches, rows_for(model)).numpy()
        shown = most_read(maps)
        yield from _global_maps(model, maps, shown, min(len(label), rows_for(model)))
        yield from _single_rows(model, batches[0], p, shown)
        likely[np.ix_(model.attended, model.attended)] = maps.max((0, 1))
    yield _pairs(model, batches[0], likely)


# ---- quality ----


def _quality(label: np.ndarray, found: Mapping[str, np.ndarray]) -> Exhibit:
    """One column of metrics for each set of probabilities."""
    columns = {name: metrics.summary(label, p) for name, p in found.items()}
    rows = [
        {"metric": metric} | {name: column[metric] for name, column in columns.items()}
        for metric in next(iter(columns.values()))
    ]
    caption = f"On {len(label):,} test rows, {label.mean():.1%} of them with label 1."
    return Exhibit("Quality", caption, rows)


def _calibration(label: np.ndarray, found: Mapping[str, np.ndarray]) -> Exhibit:
    from matplotlib.figure import Figure

    curves = {name: metrics.reliability(label, p) for name, p in found.items()}
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes = figure.subplots()
    top = 1.05 * max(max(b.predicted, b.observed) for bins in curves.values() for b in bins)
    axes.plot([0, top], [0, top], color="0.7", lw=1, zorder=0)
    for (name, bins), color in zip(curves.items(), ("C0", "C1"), strict=False):
        error = metrics.expected_calibration_error(label, found[name])
        axes.plot(
            [b.predicted for b in bins], [b.observed for b in bins], "o-", ms=4, color=color,
            label=f"{name}: expected calibration error {error:.4f}",
        )  # fmt: skip
    axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    axes.set_xlabel("mean prediction")
    axes.set_ylabel("share of label 1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
    rows = [
        {"probabilities": name, "bin": i + 1} | b._asdict()
        for name, bins in curves.items()
        for i, b in enumerate(bins)
    ]
    caption = "Ten bins of equally many rows; on the grey line predictions are exact."
    return Exhibit("Calibration", caption, figure, rows)


def _unseen(data: "ClickData") -> Exhibit:
    prepared = data.prepared
    unseen, empty = prepared.unseen, prepared.empty
    rows = [
        {"field": name, "rare or unseen": unseen.get(name), "empty": empty.get(name)}
        for name in sorted(prepared.layout.names, key=lambda name: -unseen.get(name, 0.0))
    ]
    caption = (
        "Shares of cells: of validation cells those whose value was rare or unseen in training, of "
        "all cells those without a value."
    )
    return Exhibit("Rare, unseen and empty cells", caption, rows, name="unseen")


def _cold(
    data: "ClickData", batches: Sequence[Batch], label: np.ndarray, p: np.ndarray
) -> Iterator[Exhibit]:
    """How good probabilities are in rows with a value of a field that training hardly knew."""
    layout, index = data.prepared.layout, torch.cat([batch["index"] for batch in batches])
    value = torch.cat([batch["value"] for batch in batches])
    slots = np.array(layout.slot_names())
    cold = {
        name: ((index == row) & (value != 0))[:, torch.from_numpy(slots == name)].any(1).numpy()
        for name, row in data.prepared.rare.items()
    }
    cold = {name: rows for name, rows in cold.items() if rows.any()}
    if not cold:
        return
    parts = {"warm in every field": ~np.any(list(cold.values()), 0)}
    parts |= {f"cold in {name}": rows for name, rows in cold.items()}
    table = [
        {"rows": part, "count": int(rows.sum())} | metrics.summary(label[rows], p[rows])
        for part, rows in parts.items()
        if rows.any()
    ]
    caption = (
        "Test rows whose value of a field is rare or unseen in training, beside those in which "
        "none is; a metric is left out where all rows have one label."
    )
    yield Exhibit("Cold and warm rows", caption, table, name="cold-and-warm")


# ---- attention ----


def rows_for(model: AutoInt) -> int:
    """Rows whose attention is averaged: fewer where many fields make each row dear."""
    return max(256, min(ROWS, ROWS * 64**2 // len(model.attended) ** 2))


def attention_maps(
    model: AutoInt, batches: Sequence[Batch], rows: int = ROWS
) -> Float[Tensor, "blocks heads fields fields"]:
    """The attention of every block and head, averaged over the first rows.

    Memory holds the weights of so many rows at a time that they are 2^26 numbers at most.
    """
    step = max(1, 2**26 // (model.config.heads * len(model.attended) ** 2))
    with torch.no_grad(), record(model.blocks, "pattern", Mean) as seen:
        for batch in _first(batches, rows):
            size = min(len(batch["label"]), rows)
            rows -= size
            for start in range(0, size, step):
                part = slice(start, min(start + step, size))
                model(batch["index"][part], batch["value"][part])
    return torch.stack(list(seen.values()))


def most_read(
    maps: Float[np.ndarray, "blocks heads fields fields"], limit: int = SHOWN
) -> Int[np.ndarray, " shown"]:
    """The fields that are read most, in their order; all where there are no more than `limit`.

    Example:
        >>> most_read(np.eye(3)[[2, 2, 0]][None, None], limit=2).tolist()
        [0, 2]
    """
    return np.sort(np.argsort(-maps.sum((0, 1, 2)), kind="stable")[:limit])


def _left_out(shown: np.ndarray, fields: int) -> str:
    some = len(shown) < fields
    return f" Shown are the {len(shown)} fields of {fields} that are read most." if some else ""


def _global_maps(
    model: AutoInt,
    maps: Float[np.ndarray, "blocks heads fields fields"],
    shown: Int[np.ndarray, " shown"],
    count: int,
) -> Iterator[Exhibit]:
    fields = maps.shape[-1]
    even, rest = 1 / fields, _left_out(shown, fields)
    names = [model.layout.names[model.attended[i]] for i in shown]
    maps = maps[:, :, shown[:, None], shown]
    titles = [f"block {i + 1}" for i in range(len(maps))]
    yield Exhibit(
        "Attention between fields",
        f"Mean over heads and {count:,} test rows. A row is the field that asks, a column the "
        f"field it reads; each row sums to 1, so an even spread would be {even:.3f}.{rest}",
        draw_maps(list(maps.mean(1)), titles, names, columns=len(maps)),
        _map_rows(maps.mean(1, keepdims=True), names),
        "attention-global",
    )
    heads = maps.shape[1]
    panels = [x for block in maps for x in block]
    titles = [f"block {i + 1}, head {j + 1}" for i in range(len(maps)) for j in range(heads)]
    yield Exhibit(
        "Attention by block and head",
        f"As above, for every head of every block.{rest}",
        draw_maps(panels, titles, names, columns=heads),
        _map_rows(maps, names),
        "attention-heads",
    )


def _single_rows(
    model: AutoInt, batch: Batch, p: np.ndarray, shown: np.ndarray, cases: int = 3
) -> Iterator[Exhibit]:
    names = [model.layout.names[model.attended[i]] for i in shown]
    size = len(batch["label"])
    order = np.argsort(p[:size])
    chosen = torch.from_numpy(order[np.linspace(0, size - 1, cases).round().astype(int)].copy())
    with torch.no_grad(), record(model.blocks, "pattern") as seen:
        model(batch["index"][chosen], batch["value"][chosen])
    maps = torch.stack([x.mean(1) for x in seen.values()]).numpy()  # blocks, cases, fields, fields
    rest, maps = _left_out(shown, maps.shape[-1]), maps[:, :, shown[:, None], shown]
    panels, titles, rows = [], [], []
    for case, row in enumerate(chosen.tolist()):
        for block in range(len(maps)):
            panels.append(maps[block, case])
            titles.append(f"row {row}, p = {p[row]:.3f}, block {block + 1}")
            for entry in _map_rows(maps[block, case][None, None], names):
                rows.append({"row": row, "p": p[row]} | entry | {"block": block + 1})
    yield Exhibit(
        "Attention in single rows",
        "The test rows with the lowest, a middle and the highest prediction; mean over heads."
        + rest,
        draw_maps(panels, titles, names, columns=len(maps)),
        rows,
        "attention-rows",
    )


def _map_rows(maps: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    blocks, heads = maps.shape[:2]
    return [
        {"block": block + 1}
        | ({"head": head + 1} if heads > 1 else {})
        | {"asks": names[i], "reads": names[j], "weight": float(maps[block, head, i, j])}
        for block, head in itertools.product(range(blocks), range(heads))
        for i, j in itertools.product(range(len(names)), repeat=2)
    ]


def draw_maps(
    maps: Sequence[np.ndarray], titles: Sequence[str], names: Sequence[str], columns: int
) -> "Figure":
    """Heat maps over fields in a grid, on one colour scale."""
    from matplotlib.figure import Figure

    rows = -(-len(maps) // columns)
    side = max(2.2, 0.24 * len(names) + 0.9)
    figure = Figure(figsize=(side * columns + 0.9, side * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    top = max(float(np.nanmax(x)) for x in maps)
    image = None
    for axes, x, title in zip(grid.flat, maps, titles, strict=True):
        image = axes.imshow(x, vmin=0, vmax=top, cmap="viridis")
        axes.set_title(title, fontsize=9, loc="left")
        name_axes(axes, names)
    assert image is not None
    figure.colorbar(image, ax=list(grid.flat), shrink=0.8, label="attention weight")
    return figure


def name_axes(axes: "Axes", names: Sequence[str]) -> None:
    """Writes the fields' names on both axes."""
    size = 8 if len(names) <= 20 else 6
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)


# ---- interacting pairs ----


def _pairs(model: Model, batch: Batch, likely: np.ndarray) -> Exhibit:
    if not likely.any():
        likely = lone_effects(model, batch) if model.layout.fields**2 > 2 * PAIRS else likely
    chosen = candidates(likely, PAIRS if model.layout.fields <= WIDE else PAIRS // 2)
    strengths = interaction_strengths(model, batch, pairs=chosen).numpy()
    rows = [
        {
            "field": model.layout.names[i],
            "with": model.layout.names[j],
            "strength": float(strengths[i, j]),
        }
        for i, j in chosen
    ]
    rows.sort(key=lambda row: -row["strength"])
    known = np.nan_to_num(strengths)
    shown = most_read(known[None, None])
    names = [model.layout.names[i] for i in shown]
    figure = draw_maps(
        [strengths[shown[:, None], shown]], ["interaction strength"], names, columns=1
    )
    figure.axes[-1].set_ylabel("change of the logit")
    best = ", ".join(f"{row['field']} × {row['with']}" for row in rows[:5])
    fields = model.layout.fields
    total = fields * (fields - 1) // 2
    caption = (
        "Root mean square of the change of the logit when two fields are swapped for those of "
        f"another row, beyond what each swap does alone. Strongest: {best}."
    )
    if len(chosen) < total:
        caption += (
            f" Measured are the {len(chosen)} of {total:,} pairs that attend to each other most, "
            "or whose fields count most where there is no attention; the map shows the strongest "
            f"{len(shown)} fields, the others were left out."
        )
    return Exhibit("Interacting pairs", caption, figure, rows, "interactions")


def _first(batches: Any, rows: int) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        rows -= len(batch["label"])
        if rows <= 0:
            return
