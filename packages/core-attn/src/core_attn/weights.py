"""Weights of any file: opened whatever wraps them, copied where they fit, and said."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# What holds the weights in a checkpoint, averaged ones first.
WRAPPERS = ("model_ema", "state_dict_ema", "ema", "state_dict", "model", "module", "params", "net")
IN_A_FOLDER = ("model.safetensors", "pytorch_model.bin")


class Weights(NamedTuple):
    """The tensors of a file.

    Attributes:
        state: by name, without the prefixes that wrappers add.
        source: the file, and what in it held them.
    """

    state: dict[str, Tensor]
    source: str


def read_weights(path: str | Path) -> Weights:
    """The weights in a file of safetensors or torch, on the CPU; no code in it is run.

    They may lie under "model_ema", "state_dict", "model" and the like (averaged ones first), with
    the prefixes of DataParallel and torch.compile, or in a folder that `save_pretrained` made. Of a
    checkpoint of these packages they are the network's, without the task's "model.".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds no tensors by name.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        found = [path / name for name in IN_A_FOLDER if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"weights {path}: a folder without {' or '.join(IN_A_FOLDER)}")
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"weights {path}: no such file")
    content, within = _read(path), []
    while not _is_state(content):
        held = next((k for k in WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if held is None:
            keys = ", ".join(map(str, list(content)[:5])) or "nothing"
            raise ValueError(f"weights {path}: no tensors by name in it; it holds {keys}")
        trained_here = "pytorch-lightning_version" in content
        content, within = content[held], [*within, held]
        if trained_here and any(key.startswith("model.") for key in content):
            content = {k[6:]: v for k, v in content.items() if k.startswith("model.")}
    state = _plain({key: x for key, x in content.items() if isinstance(x, Tensor)})
    return Weights(state, f"{path}{''.join(f'[{key}]' for key in within)}")


@dataclass(frozen=True)
class Copied:
    """What `copy_weights` did.

    Attributes:
        copied: names of weights that were taken over.
        missing: of the model's that the file has not; they stay as initialized.
        reshaped: likewise, with the file's shape and the model's: of another shape.
        unused: of the file's that the model has not.
    """

    copied: tuple[str, ...]
    missing: tuple[str, ...]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.copied) + len(self.missing) + len(self.reshaped)
        parts = [f"{len(self.copied)} of {total} weights taken over"]
        if fresh := [
            *(f"{key} {a} instead of {b}" for key, (a, b) in self.reshaped.items()),
            *(f"{key} (missing)" for key in self.missing),
        ]:
            parts.append(f"left as initialized: {_some(fresh)}")
        if self.unused:
            parts.append(f"not used: {_some(self.unused)}")
        return "; ".join(parts)


def copy_weights(model: nn.Module, state: Mapping[str, Tensor]) -> Copied:
    """Copies every weight whose name and shape are the model's; the others stay.

    Raises:
        ValueError: fewer than half are: it is another model's file.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> print(copy_weights(model, {"weight": torch.ones(3, 2), "bias": torch.ones(5)}))
        1 of 2 weights taken over; left as initialized: bias (5,) instead of (3,)
    """
    own = model.state_dict()
    reshaped = {
        key: (tuple(state[key].shape), tuple(own[key].shape))
        for key in own
        if key in state and state[key].shape != own[key].shape
    }
    fitting = {key: state[key] for key in own if key in state and key not in reshaped}
    if 2 * len(fitting) < len(own):
        count = f"only {len(fitting)} of {len(own)} weights fit" if fitting else "no weight fits"
        unlike = [key for key in own if key not in fitting]
        raise ValueError(
            f"{count} {type(model).__name__}: it has {_some(_shaped(own, unlike))}; given are "
            f"{_some(_shaped(state, unlike) or state)}"
        )
    model.load_state_dict(fitting, strict=False)
    return Copied(
        tuple(fitting),
        tuple(key for key in own if key not in state),
        reshaped,
        tuple(key for key in state if key not in own),
    )


def _read(path: Path) -> Mapping[Any, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # training scripts keep theirs
            content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"weights {path} cannot be read: {error}".splitlines()[0]) from error
    except OSError:
        raise
    except Exception as error:  # other bytes raise whatever the unpickler stumbles over
        what = "it is cut, no file of weights, or holds code"
        raise ValueError(f"weights {path} cannot be read: {what}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"weights {path}: it holds a {type(content).__name__}, no tensors by name")
    return content


def _is_state(content: Mapping[Any, Any]) -> bool:
    """Whether the entries are weights, perhaps with a counter or two that are none."""
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    return tensors > 0 and not any(isinstance(value, Mapping) for value in content.values())


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what torch.compile writes into names, and DataParallel before all of them."""
    state = {key.replace("_orig_mod.", ""): x for key, x in state.items()}
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): x for key, x in state.items()}
    return state


def _shaped(weights: Mapping[str, Tensor], names: Sequence[str]) -> list[str]:
    """Names with their shapes."""
    return [f"{name} {tuple(weights[name].shape)}" for name in names if name in weights]


def _some(names: Any, limit: int = 4) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
