"""The learning check: a small model after 400 steps on short synthetic sentences, over seeds."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from attn_speech.data import PicoCorpus, SpeechData
from attn_speech.data.batching import collate
from attn_speech.data.clips import Clip
from attn_speech.data.pico import sentences
from attn_speech.metrics import diagonality
from attn_speech.models import TransformerTTSConfig
from attn_speech.models.tts_loss import TTSLossConfig
from attn_speech.tasks import SpeechSynthesis
from attn_speech.tasks.judging import Judge
from core_attn import record

LONGEST, FRAMES = 24, 2400
SIZES = {
    "embed_dim": 96, "dim": 96, "heads": 4, "encoder_depth": 2, "decoder_depth": 2,
    "encoder_hidden": 256, "decoder_hidden": 256, "encoder_prenet_dim": 96,
    "decoder_prenet_dim": 96, "postnet_dim": 96, "reduction": 4, "encoder_prenet_dropout": 0.2,
    "postnet_dropout": 0.2,
}  # fmt: skip


class ShortSentences(PicoCorpus):
    """The sentences of the synthetic corpus that are at most `LONGEST` characters long."""

    def clips(self, rate: int, cache: Path) -> Sequence[Clip]:
        return [clip for clip in super().clips(rate, cache) if len(clip.text) <= LONGEST]


def trained(data: SpeechData, seed: int, steps: int, mask_padding: bool) -> SpeechSynthesis:
    """A model after some steps."""
    torch.manual_seed(seed)
    task = SpeechSynthesis(
        TransformerTTSConfig(**SIZES, mask_padding=mask_padding),
        TTSLossConfig(stop_weight=6.0, guided=("encoder-decoder",)),
    )
    task.build_for(data)
    made = task.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    loader, step = data.train_dataloader(), 0
    while step < steps:
        loader.sampler.set_epoch(step)
        for batch in loader:
            optimizer.zero_grad()
            task.losses(batch)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(task.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if step == steps:
                break
    return task.eval()


@torch.no_grad()
def measured(task: SpeechSynthesis, data: SpeechData, *, listen: bool) -> dict[str, float]:
    """Losses and alignment on held-out sentences shown their mels, and said freely."""
    assert data.prepared is not None
    rows: list[dict[str, float]] = []
    focus, leak = [], 0.0
    for batch in data.test_dataloader():
        with record(task.model, "pattern", layers="decoder.blocks.*.cross") as seen:
            parts = task.losses(batch)
        rows.append({name: float(value) for name, value in parts.items()})
        pattern = torch.stack(list(seen.values()), 1)
        for row, (steps, tokens) in enumerate(
            zip(batch.mel_lengths // 4, batch.text_lengths + 1, strict=True)
        ):
            focus.append(diagonality(pattern[row, :, :, :steps, :tokens]).focus)
        memory, lengths = task.model.encode(batch.text, batch.text_lengths)
        alone, _ = task.model.encode(
            batch.text[:1, : batch.text_lengths[0]], batch.text_lengths[:1]
        )
        leak = max(leak, float((memory[:1, : lengths[0]] - alone).abs().max()))
    judge = Judge(task.features, task.alignment_head, listen=listen)
    for numbers in data.test_numbers:
        utterances = [data.prepared[i] for i in numbers]
        task.judge(collate(utterances), [u.text for u in utterances], judge)
    errors = torch.tensor([row["stop_error"] for row in judge.rows])
    return {
        "held-out L1": sum(row["l1"] for row in rows) / len(rows),
        "guided": sum(row["guided_encoder-decoder"] for row in rows) / len(rows),
        "focus": float(torch.stack(focus).mean(0).max()),
        "ends within 20 %": float((errors <= 0.2).float().mean()),
        "row alone": leak,
        **{name: value for name, value in judge.table().items() if "word" in name},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--padding", nargs="+", default=["masked", "official"])
    parser.add_argument("--listen", action="store_true", help="word error rates, by pocketsphinx")
    parser.add_argument("--out", default="runs/learning", help="what is there is not run again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = SpeechData(ShortSentences(len(sentences())), frames_per_batch=FRAMES, valid=0, test=16)
    data.setup("fit")
    for padding in options.padding:
        for seed in options.seeds:
            path = Path(options.out, f"{padding}-{seed}-{options.steps}.json")
            if not path.is_file():
                task = trained(data, seed, options.steps, padding == "masked")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(measured(task, data, listen=options.listen)))
            result = json.loads(path.read_text())
            columns = ", ".join(f"{name} {value:.3g}" for name, value in result.items())
            print(f"{padding}, seed {seed}, {options.steps} steps: {columns}", flush=True)


if __name__ == "__main__":
    main()
