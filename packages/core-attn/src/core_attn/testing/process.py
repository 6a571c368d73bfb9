"""A package's command in a new process, forked from one that has imported it; it may be killed."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HASH_SEED = "1"


def start(
    package: str,
    words: Sequence[str],
    folder: Path,
    *,
    kill_after: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Starts a command and returns its process; what it prints goes to out.txt and err.txt.

    Args:
        package: the import name.
        words: of the command.
        folder: where it runs; it is made.
        kill_after: calls of an optimizer after which the process kills itself; 0 for never.
        environment: further variables, as RANK; it names the output files too.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [f"{package}.tasks", f"{package}.data", "core_attn.training.fit", "torch.utils.tensorboard"]
    )
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = HASH_SEED  # of the server that is started now, if none is
    folder.mkdir(parents=True, exist_ok=True)
    arguments = (package, list(words), str(folder), kill_after, dict(environment or {}))
    process = context.Process(target=_run, args=arguments)
    try:
        process.start()
    finally:
        os.environ.pop("PYTHONHASHSEED")
        if before is not None:
            os.environ["PYTHONHASHSEED"] = before
    return process


def _run(
    package: str, words: list[str], folder: str, kill_after: int, environment: dict[str, str]
) -> None:
    from pytorch_lightning.utilities.rank_zero import rank_zero_only
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from core_attn.cli import main

    os.chdir(folder)
    for name in ("ATTN_RUN_FOLDER", "RANK", "LOCAL_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    os.environ.update(environment)
    rank = environment.get("RANK", "")
    rank_zero_only.rank = int(rank or 0)  # type: ignore[attr-defined]  # imported before it was set
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        file = os.open(f"{name}{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream.fileno())
    taken = 0

    def count(*_: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    if kill_after:
        register_optimizer_step_post_hook(count)
    sys.exit(main(package, words))
