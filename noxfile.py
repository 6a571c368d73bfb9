"""Sessions of the workspace. Packages are found by folder: a new one needs no edit here.

A package may say in its pyproject.toml, under [tool.attn]:
    demo          commands that train something small and picture it; {out} is their folder
    evidence      commands whose results stand in EVIDENCE.md; slow
    bench         commands that compare with peers; by default all of benchmarks/
    test-no-deps, bench-no-deps   wheels for that group, installed without their dependencies
"""

import os
import shlex
import sys
import tomllib
import webbrowser
from html import escape
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process compiles torch's sources anew
ROOT = Path(__file__).parent
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
nox.options.sessions = ["lint", "types", "kernels", "docs"]
nox.options.sessions += [f"tests-{name}" for name in PACKAGES]


def project(name: str) -> dict:
    return tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text())


def settings(name: str) -> dict:
    return project(name).get("tool", {}).get("attn", {})


def install(
    session: nox.Session, *names: str, groups: tuple[str, ...] = (), extra: str = ""
) -> None:
    """Install packages as a user's pip would: built, with pinned dependencies, none editable."""
    folders = {"core-attn": ""}
    for name in names:
        has_extra = extra in project(name)["project"].get("optional-dependencies", {})
        folders[name] = f"[{extra}]" if has_extra else ""
    session.install(
        *("-c", "constraints.txt", "--no-sources"),  # sources would make core-attn editable
        *(f"./packages/{name}{extras}" for name, extras in folders.items()),
        *(f"--reinstall-package={project(name)['project']['name']}" for name in folders),
        *(f"--group=packages/{name}/pyproject.toml:{group}" for name in names for group in groups),
    )
    for name in names:
        for group in groups:
            if wheels := settings(name).get(f"{group}-no-deps"):
                session.install("-c", "constraints.txt", "--no-deps", *wheels)


def run_tests(session: nox.Session, name: str) -> None:
    install(session, name, groups=("test",))
    module = project(name)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"][0][4:]
    shared = ROOT.parent / "shared"
    session.chdir(f"packages/{name}")
    session.run(
        *("pytest", "-n", "2", "--dist", "worksteal"),
        *(session.posargs or ("./tests", "--pyargs", module)),  # some wheel brings a `tests`
        env={
            "ATTN_PARITY": os.environ.get("ATTN_PARITY", str(shared / "parity")),
            "ATTN_DATA": os.environ.get("ATTN_DATA", str(shared / "data")),
            "OMP_NUM_THREADS": "1",
        },
    )


for _name in PACKAGES:
    nox.session(name=f"tests-{_name}")(lambda session, name=_name: run_tests(session, name))


@nox.session
def lint(session: nox.Session) -> None:
    """Format and style."""
    session.install("-c", "constraints.txt", "--group=lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types of every package's sources, against the real dependencies."""
    session.install("-c", "constraints.txt", "--group=types")
    install(session, *PACKAGES)
    session.run("pyright")


@nox.session
def kernels(session: nox.Session) -> None:
    """Interpret the Triton kernels beside the reference, compile them, write docs/kernels.md."""
    if sys.platform != "linux":
        session.skip("triton has wheels for Linux only")
    install(session, "core-attn", groups=("test",))
    session.chdir("packages/core-attn")
    session.run(
        *("pytest", "-n", "2", "--dist", "worksteal", "tests/kernels"),
        env={"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )
    session.run("python", "-m", "benchmarks.kernels", str(ROOT / "docs" / "kernels.md"))


@nox.session
def wheels(session: nox.Session) -> None:
    """Build the wheels of a release into dist/, kernels compiled; test these without a compiler."""
    out = ROOT / "dist"
    build = ("uv", "build", "--wheel", "--all-packages", "--out-dir", str(out))
    session.run(*build, env={"ATTN_PREBUILT": "1"}, external=True)
    names = {"core-attn": "tests/ops/test_short_attention_cpu.py", "recsys": "tests/optim"}
    groups = (f"--group=packages/{name}/pyproject.toml:test" for name in names)
    built = (str(out / wheel) for wheel in os.listdir(out) if wheel.startswith(("core", "attn_re")))
    session.install("-c", "constraints.txt", "--no-sources", "--reinstall", *built, *groups)
    environment = {"CC": "no-compiler", "OMP_NUM_THREADS": "1"}
    for kernel in ("core_attn.ops._short_attention.native", "attn_recsys.optim.rows"):
        check = f"from {kernel} import KERNEL; KERNEL.library"  # raises where there is none
        session.run("python", "-c", check, env=environment)
    for name, tests in names.items():
        with session.chdir(f"packages/{name}"):
            session.run("pytest", "-n", "2", "-k", "kernel or cpu", tests, env=environment)


@nox.session(python="3.12")
def torchsim(session: nox.Session) -> None:
    """The TorchSim adapter of attn-molecular; its package wants this Python."""
    install(session, "molecular", groups=("test",), extra="torchsim")
    session.chdir("packages/molecular")
    session.run("pytest", "tests/test_torchsim.py", env={"OMP_NUM_THREADS": "1"})


@nox.session
def demo(session: nox.Session) -> None:
    """Train one small model per domain and open a page with the pictures."""
    shown = [name for name in PACKAGES if settings(name).get("demo")]
    install(session, *shown, extra="demo")
    out = ROOT / "demo"
    for name in shown:
        for command in settings(name)["demo"]:
            session.run(*shlex.split(command.format(out=out / name)))
    page = demo_page(out, shown)
    session.log(f"The page: {page}")
    if sys.stdout.isatty():
        webbrowser.open(page.as_uri())


def demo_page(out: Path, names: list[str]) -> Path:
    """One page with the report of every package, or else the pictures its demo left behind."""
    parts = []
    for name in names:
        meta = project(name)["project"]
        parts.append(f"<h2>{meta['name']}</h2><p>{escape(meta['description'])}</p>")
        pages = sorted((out / name).rglob("*.html"))
        for path in pages:
            link = path.relative_to(out)
            parts.append(f'<p><a href="{link}">{link}</a></p><iframe src="{link}"></iframe>')
        for path in [] if pages else sorted((out / name).rglob("*.png")):
            image = f'<img src="{path.relative_to(out)}">'
            parts.append(f"<figure>{image}<figcaption>{path.stem}</figcaption></figure>")
    style = (
        "body{font:16px/1.5 system-ui;max-width:72rem;margin:2rem auto;padding:0 1rem}"
        "iframe{width:100%;height:48rem;border:1px solid #ddd}img{max-width:100%}"
        "figure{margin:1rem 0}figcaption{color:#666}"
    )
    page = out / "index.html"
    page.write_text(
        f"<!doctype html><meta charset=utf-8><title>attn</title><style>{style}</style>"
        f"<h1>attn: what was just trained</h1>{''.join(parts)}"
    )
    return page


@nox.session
def evidence(session: nox.Session) -> None:
    """Run the commands behind EVIDENCE.md; `-- vision recsys` for some packages only. Slow.

    After a cut it goes on with the command that was cut; what is done stands in runs/evidence.txt.
    """
    chosen = session.posargs or [name for name in PACKAGES if settings(name).get("evidence")]
    for name in chosen:
        install(session, name, groups=("test",))
        with session.chdir(f"packages/{name}"):
            log = Path("runs", "evidence.txt")
            done = log.read_text().splitlines() if log.is_file() else []
            for command in settings(name)["evidence"]:
                if command not in done:
                    session.run(*shlex.split(command))
                    log.parent.mkdir(exist_ok=True)
                    with log.open("a") as file:
                        file.write(command + "\n")
            log.unlink(missing_ok=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Run every benchmark against the installed peers; `-- recsys` for some packages only."""
    for name in session.posargs or PACKAGES:
        files = sorted((ROOT / "packages" / name / "benchmarks").glob("*.py"))
        files = [file for file in files if "__main__" in file.read_text()]
        commands = [f"python -m benchmarks.{file.stem}" for file in files]
        commands = settings(name).get("bench", commands)
        if commands:
            install(session, name, groups=("bench",))
        with session.chdir(f"packages/{name}"):
            for command in commands:
                session.run(*shlex.split(command))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a broken link or reference is an error."""
    session.install("-c", "constraints.txt", "--group=docs")
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
