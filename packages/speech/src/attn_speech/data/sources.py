"""Where recordings come from: layouts on the disk, a synthetic voice, the package itself."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from core_attn.training import data_folder

from ..text.files import read_text
from . import pico
from .announcements import MOST as ANNOUNCEMENTS
from .announcements import announcements
from .clips import Clip

SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus")
TABLES = ("metadata.csv", "transcripts.csv", "transcripts.tsv", "metadata.tsv", "metadata.txt")


class Source:
    """A list of recordings; a subclass says which."""

    def clips(self, rate: int, cache: Path) -> Sequence[Clip]:
        """The recordings.

        Args:
            rate: samples a second that will be asked of them.
            cache: a folder where what is made on demand can be kept.
        """
        raise NotImplementedError


class PicoCorpus(Source):
    """A synthetic corpus by SVOX Pico: no download, the same bytes every time.

    Args:
        utterances: sentences.
        voices: who says them: en-US, en-GB.
        speed: of the voices; 1 for their usual one.
        texts: where sentences are from: "books", the package's list from its beginning, or
            "announcements", of about 120 words in many orders.

    Raises:
        ValueError: there are not so many sentences.
    """

    def __init__(
        self,
        utterances: int = 600,
        voices: tuple[str, ...] = ("en-US",),
        speed: float = 1.0,
        texts: Literal["books", "announcements"] = "books",
    ):
        most = len(pico.sentences()) if texts == "books" else ANNOUNCEMENTS
        if not 1 <= utterances <= most:
            raise ValueError(f"utterances must be 1 ... {most}, got {utterances}")
        self.utterances, self.voices, self.speed = utterances, tuple(voices), speed
        self.texts = texts

    def clips(self, rate: int, cache: Path) -> Sequence[Clip]:
        """The sentences, by each voice.

        Raises:
            ValueError: another rate than the engine's is asked for.
        """
        if rate != pico.RATE:
            raise ValueError(f"the synthetic corpus has {pico.RATE} Hz, features.rate is {rate}")
        if self.texts == "books":
            texts = pico.sentences()[: self.utterances]
        else:
            texts = announcements(self.utterances)
        lines = [pico.Line(text, voice, self.speed) for voice in self.voices for text in texts]
        made: list[torch.Tensor] = []

        def sound(i: int) -> torch.Tensor:
            if not made:
                made.extend(pico.speak(lines, cache))
            return made[i]

        return [
            Clip(
                f"{line.voice}-{i:04d}@{line.speed:g}", line.text, line.voice,
                sound=lambda i=i: sound(i),
            )
            for i, line in enumerate(lines)
        ]  # fmt: skip


class LJSpeech(Source):
    """LJ Speech, or what is laid out as it: `metadata.csv` of id|text|normalised text, and `wavs`.

    Args:
        root: its folder.
    """

    def __init__(self, root: str):
        self.root = root

    def clips(self, rate: int, cache: Path) -> Sequence[Clip]:
        """The rows of the table.

        Raises:
            FileNotFoundError: the table or the folder is missing.
            ValueError: a row of the table has not two or three cells.
        """
        root = data_folder(self.root)
        table, clips = root / "metadata.csv", []
        if not table.is_file():
            raise FileNotFoundError(f"{table}: no such table")
        for number, line in enumerate(read_text(table).splitlines(), 1):
            cells = line.split("|")
            if not line.strip():
                continue
            if len(cells) not in (2, 3):
                raise ValueError(f"{table}, line {number}: not id|text|normalised text")
            clips.append(Clip(cells[0], cells[-1], "lj", root / "wavs" / f"{cells[0]}.wav"))
        return clips


class LibriTTS(Source):
    """LibriTTS, or what is laid out as it: speaker/chapter/*.wav beside *.normalized.txt.

    Args:
        root: its folder.
    """

    def __init__(self, root: str):
        self.root = root

    def clips(self, rate: int, cache: Path) -> Sequence[Clip]:
        """The sound files with their texts.

        Raises:
            FileNotFoundError: the folder does not exist.
            ValueError: it has no sound files.
        """
        root, clips = data_folder(self.root), []
        for path in sorted(root.rglob("*.wav")):
            text = path.with_suffix(".normalized.txt")
            said = text.read_text("utf-8", "replace").strip() if text.is_file() else ""
            clips.append(Clip(path.stem, said, path.parent.parent.name, path))
        if not clips:
            raise ValueError(f"data folder {root} holds no speaker/chapter/*.wav")
        return clips


class ClipFolder(Source):
    """A folder of sound files with a table of transcripts.

    The table is CSV or TSV with a heading of which one column is `text` or `transcript`, one
    `file`, `path` or `id`, and perhaps one `speaker`; or without a heading, file and text in two
    columns divided by a tab, a bar, or a comma. Names may leave out the ending and the folder.

    Args:
        root: of the sound files.
        table: the table; by default metadata.csv, transcripts.csv or the like in `root`.
    """

    def __init__(self, root: str, table: str | None = None):
        self.root, self.table = root, table

    def clips(self, rate: int, cache: Path) -> Sequence[Clip]:
        """The rows of the table, and sound files that no row names.

        Raises:
            FileNotFoundError: the folder or the table does not exist.
            ValueError: the table has no column of texts or of files, names a file twice, or by a
                name that several have.
        """
        root = data_folder(self.root)
        beside = (root / name for name in TABLES if (root / name).is_file())
        table = Path(self.table) if self.table else next(beside, None)
        if table is None or not table.is_file():
            raise FileNotFoundError(
                f"{table or root}: no table of transcripts ({', '.join(TABLES)})"
            )
        sounds = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in SOUNDS]
        by_stem: dict[str, list[Path]] = {}
        for path in sounds:
            by_stem.setdefault(path.stem, []).append(path)
        clips: dict[str, Clip] = {}
        for name, text, speaker in _table_rows(table):
            found = [root / name] if (root / name).is_file() else []
            found = found or by_stem.get(Path(name).stem) or by_stem.get(name) or []
            if len(found) > 1:
                shown = ", ".join(str(path.relative_to(root)) for path in found[:3])
                raise ValueError(f"{table}: {name!r} may be any of {shown}; name the folder too")
            path = found[0] if found else None
            clip = Clip(_name(path, root) if path else name, text, speaker, path)
            if clip.name in clips:
                raise ValueError(f"{table}: {name!r} stands there twice")
            clips[clip.name] = clip
        rest = [Clip(_name(path, root), "", "", path) for path in sounds]
        return [*clips.values(), *(clip for clip in rest if clip.name not in clips)]


class PackagedClips(Source):
    """Eight clips of LJ Speech that come with the package; public domain."""

    def clips(self, rate: int, cache: Path) -> Sequence[Clip]:
        """The clips."""
        return ClipFolder(str(Path(__file__).with_name("clips"))).clips(rate, cache)


def _name(path: Path, root: Path) -> str:
    """The path below the root, without its ending."""
    below = path.relative_to(root) if path.is_relative_to(root) else path
    return below.with_suffix("").as_posix()


def _quoted(lines: list[str], mark: str, path: Path) -> list[list[str]]:
    """The cells of lines; a quotation mark left open would take the next lines for one cell."""
    cells, rows, begun = csv.reader(lines, delimiter=mark), [], 1
    for row in cells:
        if cells.line_num > begun:
            raise ValueError(f"{path}, line {begun}: a quotation mark is not closed")
        begun = cells.line_num + 1
        if row:
            rows.append(row)
    return rows


def _table_rows(path: Path) -> list[tuple[str, str, str]]:
    lines = read_text(path).splitlines()
    first = lines[0] if lines else ""
    mark = next((mark for mark in ("\t", "|", ",", ";") if mark in first), ",")
    if mark == "|":
        rows = [line.split("|") for line in lines if line.strip()]
    else:
        rows = _quoted(lines, mark, path)
    heading = [cell.strip().lower() for cell in rows[0]] if rows else []
    texts = [i for i, cell in enumerate(heading) if cell in ("text", "transcript", "sentence")]
    files = [i for i, cell in enumerate(heading) if cell in ("file", "path", "id", "name")]
    files.sort(key=lambda i: ("file", "path", "id", "name").index(heading[i]))
    who = [i for i, cell in enumerate(heading) if cell == "speaker"]
    if texts and files:
        need = max(texts[0], files[0], *who)
        short = next((i for i, row in enumerate(rows, 1) if len(row) <= need), None)
        if short is not None:
            raise ValueError(f"{path}, row {short}: {len(rows[short - 1])} cells of {need + 1}")
        return [(row[files[0]], row[texts[0]], row[who[0]] if who else "") for row in rows[1:]]
    if texts or files or not rows or len(rows[0]) < 2:
        raise ValueError(
            f"{path}: needs the columns text and file, or file and text without a heading"
        )
    return [(row[0], row[-1], "") for row in rows]
