"""Files with the inputs, weights, outputs and gradients of an official implementation."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor


@dataclass(frozen=True)
class ParityCase:
    """One recorded run of official code.

    Attributes:
        name: the file's stem.
        config: how the official model was built.
        inputs: tensors by name.
        params: the official state dict.
        outputs: expected results.
        grads: expected gradients, of inputs as "in.<name>" and of parameters by official key.
        constants: what the official code derives from its configuration, as a table of positions.
        notes: the metadata's remarks.
    """

    name: str
    config: dict[str, Any]
    inputs: dict[str, Tensor]
    params: dict[str, Tensor]
    outputs: dict[str, Tensor]
    grads: dict[str, Tensor]
    constants: dict[str, Tensor]
    notes: str


def load_case(path: str | Path) -> ParityCase:
    """Reads a case from a safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a tensor's name has none of the prefixes in, param, out, grad, const.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no parity file {path}")
    groups: dict[str, dict[str, Tensor]] = {
        group: {} for group in ("in", "param", "out", "grad", "const")
    }
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        for key in file.keys():
            group, _, name = key.partition(".")
            if group not in groups:
                raise ValueError(f"{path}: tensor {key!r} is none of {', '.join(groups)}")
            groups[group][name] = file.get_tensor(key)
    config = json.loads(metadata.get("config", "{}"))
    return ParityCase(path.stem, config, *groups.values(), notes=metadata.get("notes", ""))


def parity_cases(system: str, committed: str | Path) -> list[Path]:
    """Lists the files of a system: all in the parity folder, and those committed beside the tests.

    The parity folder is $ATTN_PARITY, or `../shared/parity` beside the repository.

    Args:
        system: the name of its folder.
        committed: the folder `tests/parity/cases` of the package.
    """
    files = {path.name: path for path in sorted(Path(committed, system).glob("*.safetensors"))}
    folder = _parity_folder(Path(committed))
    if folder is not None:
        files |= {path.name: path for path in sorted((folder / system).glob("*.safetensors"))}
    return list(files.values())


def _parity_folder(start: Path) -> Path | None:
    if "ATTN_PARITY" in os.environ:
        return Path(os.environ["ATTN_PARITY"])
    for folder in start.resolve().parents:
        if (folder / "constraints.txt").is_file():
            return folder.parent / "shared" / "parity"
    return None


def assert_parity(
    actual: dict[str, Tensor],
    expected: dict[str, Tensor],
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Requires every expected tensor among the actual ones, equal within the tolerances.

    Raises:
        AssertionError: naming every tensor that is missing or differs, with its largest error.
    """
    faults = []
    for name, want in expected.items():
        if name not in actual:
            faults.append(f"{name}: missing")
            continue
        try:
            torch.testing.assert_close(actual[name].detach(), want, rtol=rtol, atol=atol)
        except AssertionError as error:
            faults.append(f"{name}: {' '.join(str(error).split())}")
    if faults:
        raise AssertionError("\n".join(faults))
