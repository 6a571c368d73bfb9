"""The pictures of speech reports."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from core_attn.training import Exhibit

from ..audio.features import MelFeatures
from ..audio.files import wav_bytes
from ..data.batching import collate
from ..data.module import SpeechData
from ..metrics.distances import log_mel_l1
from ..models.decoding import decode
from ..vocoder import WaveNetVocoder

if TYPE_CHECKING:
    from .synthesis import SpeechSynthesis

SHOWN = 3
LONGEST_DRAWN = 160  # frames that a vocoder draws for a report


def alignment(pattern: Float[Tensor, "steps tokens"], head: tuple[int, int]) -> Figure:
    """What one head read of the text at each step."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(pattern.T.numpy(), aspect="auto", origin="lower", cmap="magma", vmin=0)
    axes.set(xlabel="decoder step", ylabel="symbol", title=f"layer {head[0]}, head {head[1]}")
    return figure


def all_heads(
    pattern: Float[Tensor, "layers heads steps tokens"], chosen: tuple[int, int]
) -> Figure:
    """What every head read, with the chosen one framed."""
    layers, heads = pattern.shape[:2]
    figure = Figure(figsize=(1.9 * heads, 1.6 * layers), layout="constrained")
    for layer, row in enumerate(figure.subplots(layers, heads, squeeze=False)):
        for head, axis in enumerate(row):
            image = pattern[layer, head].T.numpy()
            axis.imshow(image, aspect="auto", origin="lower", cmap="magma", vmin=0)
            axis.set_xticks([])
            axis.set_yticks([])
            is_chosen = (layer, head) == chosen
            axis.set_title(f"{layer}.{head}", fontsize=8, color="#c0392b" if is_chosen else "black")
            if is_chosen:
                for spine in axis.spines.values():
                    spine.set(edgecolor="#c0392b", linewidth=2)
    return figure


def mels(named: dict[str, Float[Tensor, "_frames mels"]], features: MelFeatures) -> Figure:
    """Log mels one above the other, on one scale of time and of colour."""
    figure = Figure(figsize=(7, 1.7 * len(named)), layout="constrained")
    axes = figure.subplots(len(named), 1, squeeze=False, sharex=True)[:, 0]
    low = min(float(mel.quantile(0.02)) for mel in named.values())
    high = max(float(mel.max()) for mel in named.values())
    for axis, (name, mel) in zip(axes, named.items(), strict=True):
        seconds = len(mel) * features.hop / features.rate
        axis.imshow(
            mel.T.numpy(), aspect="auto", origin="lower", cmap="viridis", vmin=low, vmax=high,
            extent=(0, seconds, 0, mel.shape[1]),
        )  # fmt: skip
        axis.set_ylabel("band", fontsize=8)
        axis.set_title(name, fontsize=9, loc="left")
    axes[-1].set_xlim(0, max(len(mel) for mel in named.values()) * features.hop / features.rate)
    axes[-1].set_xlabel("seconds")
    return figure


def synthesis(task: "SpeechSynthesis", data: SpeechData) -> Iterable[Exhibit]:
    """Alignments, mels and sounds of the first test sentences."""
    features, clips = task.features, data.prepared
    assert clips is not None
    for i in (data.parts["test"] or data.parts["train"])[:SHOWN]:
        utterance = clips[i]
        batch = collate([utterance])
        speaker = batch.speaker(task.config.speakers > 0)
        shown = task.model(
            batch.text, batch.text_lengths, features.scaled(batch.mels), batch.mel_lengths, speaker
        ).after[0]
        [done] = decode(task.model, batch.text, batch.text_lengths, speaker, options=task.options)
        true, shown, said = utterance.mel, features.restored(shown), features.restored(done.mel)
        title = f"“{utterance.text}”"
        yield Exhibit(
            f"Attention: {title}",
            "What every head of every layer reads of the text (up) at each step (right), spoken "
            "freely; the framed one runs along the text.",
            all_heads(done.pattern, task.alignment_head), name=f"attention-{i}",
        )  # fmt: skip
        yield Exhibit(
            f"Mel spectrogram: {title}",
            "The recording, the prediction from its own earlier frames, and what is said freely.",
            mels({"recording": true, "shown the recording": shown, "free": said}, features),
            name=f"mel-{i}",
        )  # fmt: skip
        for name, sound in (
            ("recording", utterance.audio),
            ("recording through Griffin-Lim", features.griffin_lim(true)),
            ("spoken freely, Griffin-Lim", features.griffin_lim(said)),
        ):
            yield Exhibit(
                f"{name}: {title}", "", wav_bytes(_audible(sound), features.rate),
                name=f"{name.split()[0]}-{'true-' if 'through' in name else ''}{i}",
            )  # fmt: skip


def resynthesized(
    draw: WaveNetVocoder, data: SpeechData
) -> Iterator[tuple[int, Tensor, dict[str, Tensor]]]:
    """Of the first test clips: their number, their log mel, and what is made of it."""
    clips = data.prepared
    assert clips is not None
    features = draw.features
    for i in (data.parts["test"] or data.parts["train"])[:SHOWN]:
        mel = clips[i].mel[:LONGEST_DRAWN]
        drawn = draw([mel], [0], clips.rows[i]["speaker"])[0]
        yield i, mel, {"WaveNet": drawn, "Griffin-Lim": features.griffin_lim(mel)}


def vocoding(draw: WaveNetVocoder, data: SpeechData) -> Iterable[Exhibit]:
    """Recordings and what a vocoder draws for their mels, beside Griffin-Lim."""
    clips = data.prepared
    assert clips is not None
    features = draw.features
    for i, mel, made in resynthesized(draw, data):
        utterance = clips[i]
        sounds = {"recording": utterance.audio[: len(mel) * features.hop], **made}
        shown = {name: features.log_mel(sound) for name, sound in sounds.items()}
        caption = "; ".join(f"{name} {log_mel_l1(again, mel):.3f}" for name, again in shown.items())
        title = f"“{utterance.text}”"
        yield Exhibit(
            f"Mel spectrograms: {title}", f"Distance to the log mel that was given: {caption}.",
            mels(shown, features), name=f"mel-{i}",
        )  # fmt: skip
        for name, sound in sounds.items():
            yield Exhibit(
                f"{name}: {title}", "", wav_bytes(_audible(sound), features.rate),
                name=f"{name.lower()}-{i}",
            )  # fmt: skip


def classification(
    counts: Int[Tensor, "classes classes"], names: Sequence[str], gate: Tensor | None
) -> Iterable[Exhibit]:
    """How often each class was taken for each other one, and where the gate looks."""
    figure = Figure(figsize=(0.5 * len(names) + 2, 0.5 * len(names) + 1), layout="constrained")
    axis = figure.subplots()
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    for row, column in counts.nonzero().tolist():
        color = "white" if share[row, column] > 0.5 else "black"
        axis.text(column, row, str(int(counts[row, column])), ha="center", va="center", fontsize=7,
                  color=color)  # fmt: skip
    axis.set(xlabel="predicted", ylabel="true")
    rows = [
        {"true": name, **dict(zip(names, row.tolist(), strict=True))}
        for name, row in zip(names, counts, strict=True)
    ]
    right = counts.diagonal().sum() / counts.sum()
    yield Exhibit("Confusion", f"{right:.1%} of the test is right.", figure, rows)
    if gate is None:
        return
    figure = Figure(figsize=(7, 3), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(gate.numpy(), aspect="auto", cmap="magma", vmin=0, vmax=1)
    axis.set(xlabel="feature", ylabel="layer or segment")
    figure.colorbar(image)
    yield Exhibit(
        "Importance factor",
        "The gate's mean over the test, from its least (0) to its greatest (1).",
        figure, [{"layer": i, **{str(j): v for j, v in enumerate(row)}}
                 for i, row in enumerate(gate.tolist())],
    )  # fmt: skip


def _audible(audio: Tensor) -> Tensor:
    return audio / audio.abs().max().clamp(min=1.0)
