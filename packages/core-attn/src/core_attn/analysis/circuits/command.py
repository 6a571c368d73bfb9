"""The command that finds the heads of a decoder that a task needs."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ...cli import positional


@positional("model")
def find(
    model: str,
    task: Literal["ioi", "greater_than", "docstring"] = "ioi",
    count: int = 250,
    out: str = "circuit.csv",
    seed: int = 0,
) -> None:
    """Rank the heads of a Hugging Face decoder by the codes that only a task needs.

    Args:
        model: the folder of the model and its tokenizer.
        task: whose prompts are given.
        count: of prompts, and of their counterparts.
        out: the table to write, best heads first.
        seed: of prompts and autoencoder.
    """
    if not Path(model).is_dir():
        raise FileNotFoundError(f"{model}: no such folder")
    if find_spec("transformers") is None:
        raise ModuleNotFoundError("transformers is not installed: pip install transformers")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from . import agreement, docstring, edge_circuit, find_circuit, greater_than, ioi, truth

    network: Any = AutoModelForCausalLM.from_pretrained(model).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(model)

    def ids(text: str) -> Any:
        return tokenizer(text, return_tensors="pt").input_ids[0]

    def single(word: str) -> bool:
        return len(tokenizer(word, add_special_tokens=False).input_ids) == 1

    made = {
        "ioi": lambda: ioi(count, seed=seed, single=single),
        "greater_than": lambda: greater_than(count, seed=seed),
        "docstring": lambda: docstring(count, seed=seed),
    }[task]()
    positive, negative = ([ids(text) for text in x] for x in (made.positive, made.negative))
    sparsity = 0.05 if task == "docstring" else 0.02  # as in the paper
    found = find_circuit(network, positive, negative, sparsity=sparsity, seed=seed)
    found.table().write_csv(out)
    print(found.table().head(10))
    known = truth(task).flatten()
    if len(known) == len(found.heads):
        for name, scores in (("nodes", found.counts), ("edges", edge_circuit(found.edges))):
            print(name, agreement(scores, known))
    else:
        print(
            f"the published circuit has {len(known)} heads to choose from, not {len(found.heads)}"
        )
    print(out)
