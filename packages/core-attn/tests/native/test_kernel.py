import ctypes
import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from core_attn.native import Kernel, builder, prebuilt

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler cc")
SOURCE = """
#include "team.h"
#ifdef MISTAKE
#error this is the mistake
#endif
typedef struct { int answer; } Call;
int answer(Call *call, int pass, int threads, Parallel parallel) { call->answer = 42; return 0; }
"""


class Call(ctypes.Structure):
    _fields_ = [("answer", ctypes.c_int)]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder, and the environment of a plain user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CC", "CFLAGS", "CORE_ATTN_NATIVE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "core_attn"


@pytest.fixture
def folder(tmp_path):
    """The sources of a kernel that takes no time to compile."""
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "answer.c").write_text(SOURCE)
    return tmp_path / "kernel"


def answers(folder):
    kernel, call = Kernel("answer", folder, ["answer"]), Call()
    assert kernel.missing() is None
    kernel.run("answer", call)
    return call.answer == 42


@needs_compiler
@pytest.mark.parametrize("damage", [b"", b"\0" * 8192, b"\x7fELF"])
def test_a_damaged_library_is_built_anew(damage, cache, folder):
    good = builder.build("answer", folder)
    content = good.read_bytes()
    good.write_bytes(damage)
    assert answers(folder)
    assert [path.read_bytes() for path in cache.iterdir()] == [content]


@needs_compiler
def test_a_library_is_built_once(cache, folder):
    first = builder.build("answer", folder)
    made = first.stat().st_mtime_ns
    assert builder.build("answer", folder) == first
    assert first.stat().st_mtime_ns == made


@needs_compiler
def test_builds_at_the_same_time_leave_one_good_library(cache, folder):
    with ThreadPoolExecutor(3) as pool:
        built = set(pool.map(lambda _: builder.build("answer", folder), range(3)))
    assert [path.name for path in cache.iterdir()] == [built.pop().name]
    assert not built
    assert answers(folder)


@needs_compiler
def test_without_a_home_to_write_to_the_library_lasts_as_long_as_the_process(cache, folder):
    script = f"""
        import os, pathlib, pwd
        pwd.getpwuid = lambda uid: (_ for _ in ()).throw(KeyError(uid))
        from core_attn.native import builder
        for home in ({{}}, {{"HOME": ""}}, {{"HOME": "/proc/nowhere"}}):
            os.environ.update(home)
            path = builder.build("answer", pathlib.Path({str(folder)!r}))
            assert path.exists()
            print(path)
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert run.returncode == 0, run.stderr
    built = run.stdout.split()
    assert len(built) == 3 and not any(map(os.path.exists, built))
    assert not (folder / ".cache").exists()


@needs_compiler
def test_the_reason_is_the_compilers_first_error(cache, folder, monkeypatch):
    monkeypatch.setenv("CC", "cc -DMISTAKE")
    reason = Kernel("answer", folder, ["answer"]).missing()
    assert reason is not None
    assert reason.startswith("compiling the kernel failed: ")
    assert "error: #error this is the mistake" in reason


@needs_compiler
def test_the_reason_of_a_failed_link_names_the_library(cache, folder, monkeypatch):
    monkeypatch.setenv("CC", "cc -lno_such_library")
    reason = Kernel("answer", folder, ["answer"]).missing()
    assert reason is not None
    assert "no_such_library" in reason


@needs_compiler
def test_machine_options_of_the_user_take_the_place_of_native(cache, folder, monkeypatch):
    commands = []
    run = builder._run
    monkeypatch.setattr(builder, "_run", lambda command: (commands.append(command), run(command)))
    for flags in ("-O0", "-O2 -mtune=generic", "-march=native -g"):
        monkeypatch.setenv("CFLAGS", flags)
        assert answers(folder)
    machine = [[part for part in command if part.startswith("-m")] for command in commands]
    assert machine == [["-march=native"], ["-march=native", "-mtune=generic"]]  # the last is cached
    monkeypatch.setenv("CFLAGS", "-march=no-such-processor")
    assert "no-such-processor" in str(Kernel("answer", folder, ["answer"]).missing())


def test_an_open_quotation_is_a_reason(cache, folder, monkeypatch):
    monkeypatch.setenv("CFLAGS", "'-O2")
    assert "CC or CFLAGS cannot be read" in str(Kernel("answer", folder, ["answer"]).missing())


@needs_compiler
def test_a_prebuilt_library_is_taken_if_it_is_intact(cache, folder, monkeypatch):
    monkeypatch.setattr(prebuilt, "_targets", lambda: ["here"])
    library = builder.build("answer", folder)
    (folder / "prebuilt").mkdir()
    target = folder / "prebuilt" / f"here-{builder.digest(library)}.so"
    library.rename(target)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert answers(folder)
    target.write_bytes(b"")
    reason = Kernel("answer", folder, ["answer"]).missing()
    assert reason == "there is no C compiler 'no-such-compiler'"
