import multiprocessing
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the package attn_tiny


@pytest.fixture(scope="session")
def start():
    """Starts `attn-tiny *argv` in a folder as a process that has everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "attn_tiny.process",
            "attn_tiny.tasks",
            "core_attn.training.fit",
            "torch.utils.tensorboard",
        ]
    )

    def start(folder, *argv, **environment):
        from attn_tiny.process import run

        folder.mkdir(exist_ok=True)
        process = context.Process(target=run, args=(str(folder), list(argv), environment))
        process.start()
        return process

    return start


@pytest.fixture
def tiny(tmp_path, monkeypatch, capfd):
    """Runs `attn-tiny *argv` in this process; returns exit code, output lines, error lines."""
    from core_attn.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATTN_RUN_FOLDER", raising=False)

    def run(*argv):
        capfd.readouterr()
        code = main("attn_tiny", argv)
        captured = capfd.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return run
