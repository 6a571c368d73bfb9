"""`python -m core_attn.analysis.circuits FOLDER`: the heads of a decoder that a task needs.

FOLDER holds a Hugging Face decoder with its tokenizer, as GPT-2 small, for which the circuits of
two tasks are published.
"""

import sys

from ...cli import main
from .command import find

if __name__ == "__main__":
    sys.exit(main("core_attn", ["find", *sys.argv[1:]], commands={"find": find}))
