"""Sessions of the workspace. Packages are found by folder: a new one needs no edit here."""

import os
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
ROOT = Path(__file__).parent
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
nox.options.sessions = ["lint", "types", "kernels", *(f"tests-{name}" for name in PACKAGES)]


def project(name: str) -> dict:
    return tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text())


def install(session: nox.Session, *names: str, extras: str = "", groups: tuple[str, ...] = ()):
    """Install packages the way a user's pip would: built, with pinned dependencies, none editable."""
    folders = dict.fromkeys(["core-attn", *names])
    session.install(
        *("-c", "constraints.txt"),
        *(f"./packages/{name}{extras if name in names else ''}" for name in folders),
        *(f"--group=packages/{name}/pyproject.toml:{g}" for name in names for g in groups),
        *(f"--reinstall-package={project(name)['project']['name']}" for name in folders),
    )
    for name in names:
        no_deps = project(name).get("tool", {}).get("attn", {}).get("test-no-deps", [])
        if no_deps and "test" in groups:
            session.install("-c", "constraints.txt", "--no-deps", *no_deps)


def run_tests(session: nox.Session, name: str):
    install(session, name, groups=("test",))
    shared = os.environ.get("ATTN_PARITY", str(ROOT.parent / "shared" / "parity"))
    session.chdir(f"packages/{name}")
    session.run(
        *("pytest", "-n", "2", "--dist", "worksteal", *session.posargs),
        env={"ATTN_PARITY": shared, "OMP_NUM_THREADS": "1"},
    )


for _name in PACKAGES:
    nox.session(name=f"tests-{_name}")(lambda session, name=_name: run_tests(session, name))
