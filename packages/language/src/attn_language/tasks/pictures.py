"""Pictures and tables of a report."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from core_attn import record
from core_attn.training import Exhibit

from ..data import LabeledText, TextData
from ..generation import generate
from ..models.bam import BAMConfig
from ..models.centroids import Centroids
from ..models.grassmann import GrassmannConfig
from ..models.lama import Lama, LowRankPooling
from ..models.routing import RoutingConfig
from ..models.spikegpt import SpikeGPTConfig
from ..models.uoe import UoEConfig
from ..spikes import spike_rates

if TYPE_CHECKING:
    from .classification import TextClassification
    from .language_model import LanguageModel

SHOWN = 40  # tokens in a picture


def language_model(task: "LanguageModel", data: TextData) -> Iterator[Exhibit]:
    """What a report shows of a language model."""
    model, config = task.network, task.network.config
    assert data.tokenizer is not None
    text = data.part("test").ids[: min(SHOWN, config.context)]
    ids = torch.as_tensor(text, dtype=torch.long, device=task.device)[None]
    yield samples(task, [int(i) for i in text[:16]])
    if isinstance(config, SpikeGPTConfig):
        yield spikes(model, ids)
    elif isinstance(config, GrassmannConfig):
        yield gates(model, ids)
    else:
        tokens = [data.tokenizer.decode([int(i)]) for i in text]
        yield attention(model, ids, tokens)
    if isinstance(config, RoutingConfig):
        yield occupancy(model, ids)
    if isinstance(config, BAMConfig):
        yield routes(model, ids, "routing", "Router probabilities of the experts at every token.")
    if isinstance(config, UoEConfig):
        yield routes(model, ids, "scores", "Gate scores of the experts at every token.")


def samples(task: "LanguageModel", prompt: list[int]) -> Exhibit:
    """Greedy and drawn continuations of the test text's beginning."""
    assert task.tokenizer is not None
    rows = []
    for name, temperature in (("greedy", 0.0), ("temperature 0.8", 0.8), ("temperature 1", 1.0)):
        new = generate(task.network, [prompt], 120, temperature=temperature, top_p=0.95)[0]
        told = task.tokenizer.decode(new)
        rows.append({"how": name, "prompt": task.tokenizer.decode(prompt), "text": told})
    return Exhibit("Samples", "What the model writes after the test text's first tokens.", rows)


@torch.no_grad()
def attention(model: Any, ids: Tensor, tokens: list[str]) -> Exhibit:
    """The weights of every head, one picture per head; of local heads one per window too."""
    with record(model, "pattern") as seen:
        model(ids)
        patterns = {name: p.cpu() for name, p in seen.items()}
    shown = {}
    for name, p in patterns.items():
        windows = p.shape[1] if p.dim() == 5 else 1
        labels = [f"window {w} · " if windows > 1 else "" for w in range(windows)]
        heads = [f"{label}{head}" for label in labels for head in range(p.shape[-3])]
        shown[name] = list(zip(heads, p.flatten(0, -3), strict=False))[:8]
    columns = max(map(len, shown.values()))
    figure = Figure(figsize=(1.6 * columns + 1, 1.7 * len(shown) + 0.4), layout="constrained")
    grid = figure.subplots(len(shown), columns, squeeze=False)
    rows = []
    for line, (name, heads) in zip(grid, shown.items(), strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, (head, weights) in zip(line, heads, strict=False):
            axes.imshow(weights.sqrt(), cmap="magma", vmin=0, vmax=1, aspect="auto")
            axes.set_title(f"{name.removeprefix('blocks.')} · {head}", fontsize=6)
            place = torch.arange(weights.shape[1])
            query = torch.arange(weights.shape[0]) + weights.shape[1] - weights.shape[0]
            back = (weights * (query[:, None] - place)).sum(-1).mean().item()
            entropy = torch.special.entr(weights).sum(-1).mean().item()
            rows.append({
                "layer": name, "head": head, "mean distance": round(back, 3),
                "mean entropy": round(entropy, 3),
            })  # fmt: skip
    caption = (
        "Square roots of the weights after the softmax on the test text's first tokens: "
        f"rows are queries, columns keys. The text begins {''.join(tokens)[:60]!r}."
    )
    return Exhibit("Attention", caption, figure, rows)


@torch.no_grad()
def gates(model: Any, ids: Tensor) -> Exhibit:
    """How much of each token the gates keep."""
    with record(model, "alpha") as seen:
        model(ids)
        alphas = {name: a[0].cpu() for name, a in seen.items()}
    figure = Figure(figsize=(3.2 * len(alphas) + 0.6, 3), layout="constrained")
    grid = figure.subplots(1, len(alphas), squeeze=False)[0]
    rows: list[dict[str, Any]] = []
    for axes, (name, alpha) in zip(grid, alphas.items(), strict=True):
        axes.imshow(alpha.T, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        axes.set(title=name, xlabel="token", ylabel="feature")
        rows.append({"layer": name, "mean": alpha.mean().item(), "deviation": alpha.std().item()})
    figure.colorbar(grid[-1].images[0], ax=list(grid), label="share kept")
    caption = "The gate between a token's own features (1) and the planes it spans with others (0)."
    return Exhibit("Mixing", caption, figure, rows)


@torch.no_grad()
def spikes(model: Any, ids: Tensor) -> Exhibit:
    """A raster of the spikes and their rates."""
    with record(model, "spikes") as seen:
        model(ids)
        trains = {name: s[0].cpu() for name, s in seen.items()}
    figure = Figure(figsize=(7, 1.6 * len(trains) + 0.4), layout="constrained")
    grid = figure.subplots(len(trains), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (name, train) in zip(grid, trains.items(), strict=True):
        axes.imshow(train.T, cmap="binary", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_title(f"{name}: rate {train.mean():.2f}", fontsize=8)
        axes.set_ylabel("channel")
    grid[-1].set_xlabel("token")
    measured = spike_rates(model, ids)
    rows = [{"layer": name, "rate": rate} for name, rate in measured.rates.items()]
    caption = (
        f"Black is a spike. {measured.accumulates:,} accumulations stand where a dense network of "
        f"the same shape has {measured.multiplies:,} multiplications, in the maps that spikes or "
        "their sums enter."
    )
    return Exhibit("Spikes", caption, figure, rows)


@torch.no_grad()
def occupancy(model: Any, ids: Tensor) -> Exhibit:
    """How many tokens are nearest to each centroid."""
    counts: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, Centroids):

            def keep(module, args, similarity, name=name):
                nearest = similarity.argmax(-1)
                clusters = similarity.shape[-1]
                hot = torch.nn.functional.one_hot(nearest, clusters)
                counts[name] = hot.sum((0, 2)).cpu()

            handles.append(module.register_forward_hook(keep))
    try:
        model(ids)
    finally:
        for handle in handles:
            handle.remove()
    figure = Figure(figsize=(3.4 * max(len(counts), 1) + 0.4, 2.6), layout="constrained")
    grid = figure.subplots(1, max(len(counts), 1), squeeze=False)[0]
    rows = []
    for axes, (name, count) in zip(grid, counts.items(), strict=False):
        below = torch.zeros(count.shape[1])
        for head, heights in enumerate(count.float()):
            axes.bar(range(len(heights)), heights, bottom=below, label=f"head {head}")
            below = below + heights
            rows += [
                {"layer": name, "head": head, "cluster": i, "tokens": int(n)}
                for i, n in enumerate(heights)
            ]
        axes.set(title=name.removesuffix(".centroids"), xlabel="cluster", ylabel="tokens")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=6)
    return Exhibit(
        "Clusters", "Tokens of the text that are nearest to each centroid.", figure, rows
    )


@torch.no_grad()
def routes(model: Any, ids: Tensor, tap: str, caption: str) -> Exhibit:
    """Probabilities of routers over the tokens."""
    with record(model, tap) as seen:
        model(ids)
        shares = {name: p[0].cpu() for name, p in seen.items()}
    figure = Figure(figsize=(7, 1.3 * len(shares) + 0.4), layout="constrained")
    grid = figure.subplots(len(shares), 1, squeeze=False, sharex=True)[:, 0]
    rows: list[dict[str, Any]] = []
    for axes, (name, share) in zip(grid, shares.items(), strict=True):
        axes.imshow(share.T, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        axes.set_title(name, fontsize=8)
        axes.set_ylabel("expert")
        rows += [
            {"layer": name, "expert": i, "mean": p.item()} for i, p in enumerate(share.mean(0))
        ]
    grid[-1].set_xlabel("token")
    figure.colorbar(grid[-1].images[0], ax=list(grid))
    return Exhibit("Routing", caption, figure, rows)


def classification(task: "TextClassification", data: LabeledText) -> Iterator[Exhibit]:
    """What a report shows of a classifier."""
    counts = torch.zeros(len(data.classes), len(data.classes), dtype=torch.long)
    for batch in data.test_dataloader():
        with torch.no_grad():
            scores = task.model(batch.ids.to(task.device), batch.lengths.to(task.device))
        guessed = scores.argmax(-1)
        counts.index_put_((batch.labels, guessed.cpu()), torch.tensor(1), accumulate=True)
    yield confusion(counts, data.classes)
    if isinstance(task.model, Lama) and isinstance(task.model.pool, LowRankPooling):
        yield from word_weights(task, data)


def confusion(counts: Tensor, classes: Iterable[str]) -> Exhibit:
    """How the test texts were classified."""
    classes = list(classes)
    figure = Figure(
        figsize=(0.7 * len(classes) + 2.6, 0.6 * len(classes) + 2), layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(counts / counts.sum(1, keepdim=True).clamp(min=1), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(classes)), classes, fontsize=7)
    axes.set(xlabel="guessed", ylabel="true")
    for i, line in enumerate(counts.tolist()):
        for j, n in enumerate(line):
            axes.text(j, i, str(n), ha="center", va="center", fontsize=7)
    rows = [
        {"true": classes[i], "guessed": classes[j], "texts": n}
        for i, line in enumerate(counts.tolist())
        for j, n in enumerate(line)
    ]
    right = counts.diagonal().sum().item() / max(counts.sum().item(), 1)
    return Exhibit(
        "Confusion", f"Test texts by true and guessed class: {right:.3f} right.", figure, rows
    )


@torch.no_grad()
def word_weights(task: "TextClassification", data: LabeledText) -> tuple[Exhibit, Exhibit]:
    """The weights of the words of some texts, and the words that weigh most."""
    assert data.tokenizer is not None
    batch = next(iter(data.test_dataloader()))
    with record(task.model, "pattern") as seen:
        task.model(batch.ids.to(task.device), batch.lengths.to(task.device))
        weights = seen["pool"][:, :, 0].cpu()
    # Weights relative to an even spread, so that texts of all lengths compare.
    relative = weights.mean(1) * batch.lengths[:, None]
    order = (batch.lengths > 7).nonzero()[:6, 0]
    figure = Figure(figsize=(9, 0.62 * len(order) + 0.6), layout="constrained")
    grid = figure.subplots(len(order), 1, squeeze=False)[:, 0]
    for axes, row in zip(grid, order.tolist(), strict=True):
        count = min(int(batch.lengths[row]), 14)
        axes.imshow(relative[row, None, :count], cmap="OrRd", vmin=0.5, vmax=1.8, aspect="auto")
        for i, token in enumerate(batch.ids[row, :count].tolist()):
            word = data.tokenizer.decode([token])
            axes.text(i, 0, word[:11], ha="center", va="center", fontsize=6)
        axes.set_xticks([])
        axes.set_yticks([])
    totals: dict[int, list[float]] = {}
    for batch in data.test_dataloader():
        with record(task.model, "pattern") as seen:
            task.model(batch.ids.to(task.device), batch.lengths.to(task.device))
            mean = seen["pool"][:, :, 0].cpu().mean(1) * batch.lengths[:, None]
        for ids, weights, length in zip(batch.ids, mean, batch.lengths, strict=True):
            for token, weight in zip(ids[:length].tolist(), weights.tolist(), strict=False):
                totals.setdefault(token, []).append(weight)
    often = {token: w for token, w in totals.items() if len(w) >= 5}
    heaviest = sorted(often, key=lambda token: -sum(often[token]) / len(often[token]))[:25]
    rows = [
        {
            "word": data.tokenizer.decode([token]), "times": len(often[token]),
            "mean weight": round(sum(often[token]) / len(often[token]), 3),
        }
        for token in heaviest
    ]  # fmt: skip
    return (
        Exhibit("Words", "Weights, 1 being an even spread; darker weighs more.", figure, rows),
        Exhibit("Heaviest words", "Of those that occur five times or more in the test.", rows),
    )
