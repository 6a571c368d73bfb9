"""Griffin-Lim from true mels of real recordings: distance of mels, MCD and word errors."""

import argparse
from pathlib import Path

import torch

from attn_speech.audio import MelFeatures, read_audio
from attn_speech.data.sources import ClipFolder, PackagedClips
from attn_speech.metrics import (
    can_listen,
    log_mel_l1,
    mel_cepstral_distortion,
    transcribe,
    word_errors,
)
from attn_speech.metrics.listening import plain_words


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", help="a folder of recordings with a table; else the packaged ones"
    )
    parser.add_argument("--clips", type=int, default=5)
    parser.add_argument("--iterations", type=int, nargs="+", default=[32, 60])
    parser.add_argument("--listener", choices=["pocketsphinx", "whisper"], default="pocketsphinx")
    options = parser.parse_args()
    torch.set_num_threads(1)
    features = MelFeatures(rate=22050, hop=256, window=1024, fft=1024)
    source = ClipFolder(options.root) if options.root else PackagedClips()
    clips = source.clips(features.rate, Path())[: options.clips]
    sounds = [read_audio(clip.path, features.rate).audio for clip in clips]
    said = [plain_words(clip.text) for clip in clips]
    words = sum(map(len, said))
    listens = can_listen(options.listener)

    def heard(audio):
        return [
            word_errors(transcribe(sound, features.rate, options.listener), text) if listens else 0
            for sound, text in zip(audio, said, strict=True)
        ]

    print(f"{len(clips)} clips, {sum(map(len, sounds)) / features.rate:.0f} s")
    print(f"recordings: word error rate {sum(heard(sounds)) / words:.1%}")
    for iterations in options.iterations:
        again = [features.griffin_lim(features.log_mel(x), iterations) for x in sounds]
        pairs = [
            (features.log_mel(y), features.log_mel(x)) for x, y in zip(sounds, again, strict=True)
        ]
        l1 = sum(log_mel_l1(a, b) for a, b in pairs) / len(pairs)
        mcd = sum(mel_cepstral_distortion(a, b, align=False) for a, b in pairs) / len(pairs)
        print(
            f"{iterations} iterations: log10-mel L1 {l1:.3f}, MCD {mcd:.2f} dB, "
            f"word error rate {sum(heard(again)) / words:.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
