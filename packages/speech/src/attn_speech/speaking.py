"""The commands that speak: `say` and `predict`."""

import sys
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch and Lightning take seconds to import, other commands need not wait
    from .voice import Voice

NOT_AS_WRITTEN = 3  # exit code: words skipped or repeated, or a decoder that ran to its limit


def say(
    ckpt: str,
    output: str,
    text: str | None = None,
    input: str | None = None,
    vocoder: str | None = None,
    seed: int = 0,
    speaker: str | None = None,
    silence: float = 0.2,
    window: tuple[int, int] | None = None,
    dictionary: str | None = None,
) -> int:
    """Speak a text into a WAV file.

    Args:
        ckpt: the checkpoint of a synthesizer.
        output: the file to write; it is whole after every piece.
        text: what to say, as the first word of the command; phonemes of your own in [[ ]].
        input: a file with the text; "-" for standard input, which is also read without a text.
        vocoder: the checkpoint of a WaveNet; Griffin-Lim without.
        seed: of what is random.
        speaker: a name, where the model has several.
        silence: seconds between pieces.
        window: symbols back and ahead that attention may read, as "[2, 4]"; no limit by default.
        dictionary: a file of pronunciations, lines of word, tab, symbols.

    Returns:
        0, or 3 where something was not said as it is written; the file is kept.
    """
    from .audio.files import WavWriter
    from .text.script import read
    from .voice import load

    written = _text(text, input)
    started = time.perf_counter()
    voice = load(ckpt, vocoder=vocoder, dictionary=dictionary)
    loaded = time.perf_counter()
    script = read(written, voice.front_end)
    for piece in script.unspoken:
        print(f"not spoken: {piece}", file=sys.stderr)
    skipped, repeated, limited = [], [], 0
    pieces = voice.pieces(
        script, written, seed, speaker=speaker, silence=silence, window=window, options=None
    )
    begun = next(pieces)  # what is refused leaves a file of that name as it was
    first = time.perf_counter()
    with WavWriter(output, voice.rate) as file:
        for piece in chain([begun], pieces):
            file.write(piece.audio)
            skipped += piece.skipped
            repeated += piece.repeated
            limited += piece.limited
        spent, seconds = time.perf_counter() - loaded, file.frames / voice.rate
    for what, words in (("skipped", skipped), ("repeated", repeated)):
        if words:
            print(f"{what}: {', '.join(dict.fromkeys(words))}", file=sys.stderr)
    if limited:
        print(f"{limited} piece(s) ran to the limit without an end", file=sys.stderr)
    print(
        f"{output}: {seconds:.2f} s of sound; loaded in {loaded - started:.2f} s, first sound "
        f"after {first - loaded:.2f} s, real-time factor {spent / seconds:.2f}"
    )
    return NOT_AS_WRITTEN if skipped or repeated or limited else 0


def predict(
    ckpt: str,
    input: str,
    output: str,
    vocoder: str | None = None,
    seed: int = 0,
    speaker: str | None = None,
) -> int:
    """Speak every line of a file into a folder of WAV files; or vocode, or classify, sound files.

    A synthesizer writes a table of what became of the lines too. A vocoder makes sound of the mels
    of sound files, or of log mels; a classifier writes a table of classes.

    Args:
        ckpt: the checkpoint of a synthesizer, a vocoder or a classifier.
        input: a text file, one text a line, or "name|text"; of the others a sound file or a folder
            of them, of a vocoder also .npy files of log mels, frames by bands.
        output: the folder to write.
        vocoder: the checkpoint of a WaveNet; Griffin-Lim without.
        seed: of what is random.
        speaker: a name, where the model has several.

    Returns:
        0, or 2 where no line could be spoken and no file was of use.
    """
    from core_attn.training import opened

    from .tasks import SpeechSynthesis

    found = opened(ckpt)
    if not isinstance(found.task, SpeechSynthesis):
        from .predicting import predict_sounds

        if vocoder is not None:
            raise ValueError(f"{ckpt} is of {type(found.task).__name__}, which takes no vocoder")
        sounds = predict_sounds(found, input, output, seed, speaker)
        changes = f"; {sounds.changes}" if sounds.changes else ""
        print(f"{output}/: {sounds.used} of {sounds.files} files{changes}")
        return 0 if sounds.used else 2
    from .text.files import read_text
    from .voice import load

    voice, folder = load(ckpt, vocoder=vocoder), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    rows, done = ["name\tseconds\tunspoken\tskipped\trepeated\tlimited\terror\ttext"], 0
    lines = [(i, line) for i, line in enumerate(read_text(input).splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{input}: there is no text in it")
    names: set[str] = set()
    for count, (number, line) in enumerate(lines):
        name, bar, text = line.partition("|")
        name, text = (Path(name.strip()).name, text) if bar else (f"{count:04d}", line)
        try:
            if not name or name in names:
                raise ValueError(f"the name {name!r} stands there twice" if name else "has no name")
            names.add(name)
            rows.append(_predicted(voice, folder / f"{name}.wav", name, text, seed, speaker))
            done += 1
        except ValueError as error:
            rows.append(f"{_cell(name)}\t\t\t\t\t\t{error}\t{_cell(text)}")
            print(f"line {number}: {error}", file=sys.stderr)
    (folder / "spoken.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{folder}/: {done} of {len(lines)} texts spoken; spoken.tsv")
    return 0 if done else 2


def _predicted(
    voice: "Voice", path: Path, name: str, text: str, seed: int, speaker: str | None
) -> str:
    from .audio.files import WavWriter

    spoken = voice.say(text, seed, speaker=speaker)
    with WavWriter(path, voice.rate) as file:
        file.write(spoken.audio)
    cells = [
        _cell(name), f"{len(spoken.audio) / voice.rate:.2f}", "; ".join(map(str, spoken.unspoken)),
        "; ".join(spoken.skipped), "; ".join(spoken.repeated), str(spoken.limited), "",
        _cell(text),
    ]  # fmt: skip
    return "\t".join(cells)


def _cell(text: str) -> str:
    """The text as a cell of the table."""
    return text.replace("\t", " ")


def _text(text: str | None, path: str | None) -> str:
    from .text.files import read_text

    if text is not None and path is not None:
        raise ValueError("give the text or --input, not both")
    if text is not None:
        return text
    return sys.stdin.read() if path is None or path == "-" else read_text(path)
