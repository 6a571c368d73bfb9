"""Picture files as 8-bit images, whatever is stored in them."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"}
)
BACKGROUND = (255, 255, 255)
_ERRORS = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: str | Path, channels: int) -> Image.Image:
    """The picture in a file, upright, with 8 bits a channel.

    Integers of 16 bits are divided by 257, floats up to 1 multiplied by 255; larger ones are
    brought to 255 by the range of 8 or 16 bits that they need. What is transparent shows white.
    Orientation is that of the EXIF tag.

    Args:
        path: the file.
        channels: 1 for grey, 3 for color.

    Raises:
        ValueError: it is no picture, is cut short, or holds values that are not finite.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.fromarray(np.full((2, 3), 65535, np.uint16)).save(file.name)
        ...     read_image(file.name, 1).getpixel((0, 0))
        255
    """
    try:
        with Image.open(path) as image:
            image.load()
            image = ImageOps.exif_transpose(image)
    except _ERRORS as error:
        raise ValueError(f"image {path} cannot be read: {error}") from error
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_bytes(np.asarray(image), path))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (*BACKGROUND, 255)), layer)
    return image.convert("L" if channels == 1 else "RGB")


def picture_files(folder: str | Path) -> list[Path]:
    """All picture files under a folder, in order; hidden files and folders are none."""
    root = Path(folder)
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    ]


def readable(paths: Sequence[Path], where: str) -> list[Path]:
    """The files that hold whole pictures; the others are named once, and counted.

    Args:
        paths: the files.
        where: what they are of, for the message.

    Raises:
        ValueError: none can be read.
    """
    with ThreadPoolExecutor(8) as pool:
        whole = list(pool.map(_is_whole, paths))
    bad = [path for path, good in zip(paths, whole, strict=True) if not good]
    if bad:
        names = ", ".join(path.name for path in bad[:3]) + (", …" if len(bad) > 3 else "")
        said = f"{len(bad)} of {len(paths)} images in {where} cannot be read: {names}"
        if len(bad) == len(paths):
            raise ValueError(said)
        print(f"{said}; they are left out", flush=True)
    return [path for path, good in zip(paths, whole, strict=True) if good]


def named_files(given: Iterable[str | Path]) -> list[Path]:
    """The picture files that are named, and those in folders that are.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: there is no picture among them.
    """
    found: list[Path] = []
    for name in given:
        path = Path(name).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"input {path} does not exist")
        found += picture_files(path) if path.is_dir() else [path]
    if not found:
        raise ValueError(f"no picture in {', '.join(map(str, given))}")
    return found


def _bytes(values: np.ndarray, path: str | Path) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError(f"image {path} holds values that are not finite")
    if values.dtype == np.uint16 or values.max(initial=0) > 255:
        values = values / 257 if values.max(initial=0) <= 65535 else values / values.max() * 255
    elif values.dtype.kind == "f" and values.max(initial=0) <= 1:
        values = values * 255
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _is_whole(path: Path) -> bool:
    """Whether a picture can be read, mostly without decoding all of a JPEG or PNG file.

    A JPEG file that does not end where its picture does is decoded: it is cut, perhaps behind the
    preview that it also holds, or a phone has put a film behind the picture.
    """
    try:
        with Image.open(path) as image:
            if image.format == "PNG":
                image.verify()
            elif image.format != "JPEG" or not _ends_as_jpeg(path):
                image.load()
    except _ERRORS:
        return False
    return True


def _ends_as_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 64, 0))
        return file.read().rstrip(b"\0\r\n ").endswith(b"\xff\xd9")
