"""Compiles a folder of C sources, once per machine, into the user's cache folder."""

import atexit
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

HEADERS = Path(__file__).parent
FLAGS = (
    "-O3", "-std=gnu11", "-shared", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
MINUTES = 10  # until a compiler is given up
DIGITS = 20  # of a digest, in a library's name


def build(name: str, folder: Path) -> Path:
    """The library for these sources, compiler and processor, compiled where there is none.

    Its name ends in a digest of its content: a file that was cut short or overwritten is known by
    it and made anew, and appears only when all of it is on the disk. Processes that build at the
    same time make the same file. Without a folder to keep it in, it lasts as long as the process.

    Raises:
        RuntimeError: there is no compiler, or it failed, with its error.
    """
    try:
        compiler, machine = shlex.split(os.environ.get("CC", "cc")), machine_options()
    except ValueError as error:
        raise RuntimeError(f"CC or CFLAGS cannot be read: {error}") from None
    binary = shutil.which(compiler[0]) if compiler else None
    if binary is None:
        raise RuntimeError(f"there is no C compiler {' '.join(compiler)!r}")
    if not any(option.startswith(("-march=", "-mcpu=")) for option in (*compiler, *machine)):
        machine = ["-march=native", *machine]
    sources = sorted(folder.glob("*.[ch]"))
    binary = Path(binary).resolve()
    key = hashlib.sha256()
    for source in (*sources, *sorted(HEADERS.glob("*.h"))):
        key.update(source.read_bytes())
    for part in (compiler, str(binary), binary.stat().st_mtime_ns, FLAGS, machine, _processor()):
        key.update(repr(part).encode())
    stem = f"{name}-{key.hexdigest()[:DIGITS]}"
    home = _folder()
    for library in home.glob(f"{stem}-*.so"):
        if intact(library):
            return library
        library.unlink(missing_ok=True)
    units = [str(source) for source in sources if source.suffix == ".c"]
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        built = Path(scratch, "library.so")
        command = [*compiler, *FLAGS, f"-I{HEADERS}", *units, "-lm", "-o", str(built)]
        try:
            _run([*command, *machine])
        except RuntimeError:
            if machine != ["-march=native"]:
                raise
            _run(command)  # some compilers for ARM know only -mcpu
        library = home / f"{stem}-{digest(built)}.so"
        with built.open("rb+") as file:
            os.fsync(file.fileno())
        built.replace(library)  # atomic: another process sees all of it or nothing
    return library


def machine_options() -> list[str]:
    """The machine options (-march=..., -mno-avx512f, ...) of $CFLAGS.

    Raises:
        ValueError: $CFLAGS has an open quotation.
    """
    options = shlex.split(os.environ.get("CFLAGS", ""))
    return [option for option in options if option.startswith("-m")]


def digest(library: Path) -> str:
    """What the name of a library ends in."""
    return hashlib.sha256(library.read_bytes()).hexdigest()[:DIGITS]


def intact(library: Path) -> bool:
    """Whether a library is what its name says."""
    try:
        return library.stem.endswith(f"-{digest(library)}")
    except OSError:
        return False


def _folder() -> Path:
    """The user's cache folder, or one for this process where that cannot be written to."""
    roots = [Path(os.environ.get("XDG_CACHE_HOME", ""))]
    try:
        roots.append(Path(os.environ["HOME"] if "HOME" in os.environ else Path.home()) / ".cache")
    except RuntimeError:  # neither HOME nor an entry of the user's
        pass
    for folder in (root / "core_attn" for root in roots if root.is_absolute()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return _process_folder()


@cache
def _process_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="core_attn-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _run(command: list[str]) -> None:
    environment = os.environ | {"LC_ALL": "C"}
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, errors="replace",
            timeout=60 * MINUTES, env=environment,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"compiling the kernel failed: {_error(error)}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"compiling the kernel failed: {error}") from None


def _error(failure: subprocess.CalledProcessError) -> str:
    """The first error that a compiler or linker printed."""
    lines = [line.strip() for line in failure.stderr.splitlines() if line.strip()]
    passed_on = ("ld returned", "linker command failed")
    errors = [line for line in lines if "error:" in line and not any(p in line for p in passed_on)]
    return next(iter(errors or lines), f"{failure.cmd[0]} ended with code {failure.returncode}")


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
