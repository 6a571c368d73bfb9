import os
import sys

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from core_attn.cli import main


def run(folder: str, argv: list[str], environment: dict[str, str]):
    """What a new process does: the command `attn-tiny *argv` in a folder, output into files."""
    os.chdir(folder)
    os.environ.update(environment)
    rank_zero_only.rank = int(environment.get("RANK", 0))  # Lightning was imported without it
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        file = os.open(
            f"{name}{environment.get('RANK', '')}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        )
        os.dup2(file, stream.fileno())
    sys.exit(main("attn_tiny", argv))
