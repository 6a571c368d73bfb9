"""A training step of the paper's model beside Tacotron 2 and ESPnet's class; ratios above 1: ours is faster."""  # noqa: E501

import argparse
import logging
from importlib.util import find_spec

import torch
import torchaudio
from torch.nn import functional as F

from attn_speech.models import create
from attn_speech.models.tts_loss import TTSLossConfig, tts_losses
from benchmarks.measuring import alternating, peak_mib

CASES = ((40, 200, 1), (40, 200, 4), (40, 200, 8), (100, 600, 4))


def ours(text, text_lengths, mels, mel_lengths):
    model = create("tts_paper")
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        said = model(text, text_lengths, mels, mel_lengths)
        tts_losses(said, mels, mel_lengths, TTSLossConfig())["loss"].backward()
        optimizer.step()

    return step


def tacotron(text, text_lengths, mels, mel_lengths):
    model = torchaudio.models.Tacotron2(n_symbol=64)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    target = mels.transpose(1, 2).contiguous()

    def step():
        optimizer.zero_grad(set_to_none=True)
        before, after, stop, _ = model(text, text_lengths, target, mel_lengths)
        loss = F.l1_loss(after, target) + F.l1_loss(before, target)
        loss = loss + F.binary_cross_entropy_with_logits(stop, torch.zeros_like(stop))
        loss.backward()
        optimizer.step()

    return step


def espnet(text, text_lengths, mels, mel_lengths):
    logging.disable(logging.CRITICAL)
    from espnet2.tts.transformer import Transformer

    model = Transformer(
        64, 80, eprenet_conv_chans=512, postnet_chans=512, eunits=2048, dunits=2048, aheads=8,
        use_guided_attn_loss=False, use_masking=True,
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss, _, _ = model(text, text_lengths, mels, mel_lengths)
        loss.backward()
        optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peers = {"Tacotron 2": tacotron} | ({"ESPnet": espnet} if find_spec("espnet2") else {})
    print(f"threads {options.threads}; seconds a step, and ratio to ours")
    for tokens, frames, batch in (CASES[i] for i in options.cases):
        torch.manual_seed(0)
        given = (
            torch.randint(1, 60, (batch, tokens)), torch.full((batch,), tokens),
            torch.randn(batch, frames, 80), torch.full((batch,), frames),
        )  # fmt: skip
        runs = {"ours": ours(*given)} | {name: make(*given) for name, make in peers.items()}
        took = alternating(runs, options.repeats)
        ratios = "  ".join(f"{n} {took[n]:.2f} s = {took[n] / took['ours']:.2f}x" for n in peers)
        print(
            f"text {tokens:3} mel {frames:3} batch {batch}: ours {took['ours']:.2f} s  {ratios}  "
            f"(peak of all {peak_mib():.0f} MiB)",
            flush=True,
        )


if __name__ == "__main__":
    main()
