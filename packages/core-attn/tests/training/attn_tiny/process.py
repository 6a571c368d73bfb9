import os
import sys

from core_attn.training import main


def run(folder: str, argv: list[str]):
    """What a new process does: the command `attn-tiny *argv` in a folder, output into files."""
    os.chdir(folder)
    for stream, name in ((sys.stdout, "out.txt"), (sys.stderr, "err.txt")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream.fileno())
    sys.exit(main("attn_tiny", argv))
