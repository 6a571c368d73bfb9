"""`export`: a trained network as a torch.export program or an ONNX file, compared with eager."""

import io
from contextlib import nullcontext
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

Axes = list[dict[int, str]]


def export(
    ckpt: str,
    format: Literal["onnx", "torch"] = "onnx",
    out: str | None = None,
    tolerance: float = 1e-4,
    inputs: dict[str, Any] | None = None,
) -> int:
    """Write a checkpoint's network as ONNX or torch.export, for any batch size, and compare it.

    What else may vary in size, as the length of a text, the task says.

    Args:
        ckpt: the checkpoint.
        format: "onnx", for onnxruntime, or "torch", for torch.export.load.
        out: the file to write; by default beside the checkpoint.
        tolerance: the largest difference allowed between an exported and an original output.
        inputs: what the network is exported for, where its task has a choice, as
            {"image_size": 96}.

    Returns:
        0, or 1 where some output differs by more than the tolerance.

    Raises:
        NotImplementedError: the task has no `example_inputs`.
        TypeError: `inputs` names something that the task has not.
        ValueError: ONNX is asked for and its packages are not installed.
    """
    import torch

    from .checkpoint import trained

    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if format == "onnx" and missing:
        raise ValueError(
            f"--format onnx needs {', '.join(missing)}: install the package with its extra [export]"
        )
    task = trained(ckpt).task
    known = signature(task.example_inputs).parameters
    for name in inputs or {}:
        if name not in known:
            raise TypeError(f"inputs has {name!r}; the task has {', '.join(known) or 'no choice'}")
    model, examples = task.exported().eval(), task.example_inputs(**(inputs or {}))
    axes = [{0: "batch", **names} for names in task.open_sizes() or [{}] * len(examples)]
    path = Path(out or Path(ckpt).with_suffix({"onnx": ".onnx", "torch": ".pt2"}[format]))
    path.parent.mkdir(parents=True, exist_ok=True)  # the ONNX exporter does not
    with torch.no_grad():
        model(*examples)  # what it refuses is told before the exporter wraps it
        if format == "onnx":
            run = _to_onnx(model, examples, axes, path, task.output_names)
        else:
            run = _to_torch(model, examples, axes, path)
        difference = max(
            _difference(model, run, _resize(examples, axes, size)) for size in (1, 2, 5)
        )
    agrees = difference <= tolerance
    print(f"{path}: largest difference {difference:.2g} at batch sizes 1, 2, 5", end="")
    print("" if agrees else f", beyond the tolerance of {tolerance:.2g}")
    return 0 if agrees else 1


def _to_torch(model: "nn.Module", inputs: tuple["Tensor", ...], axes: Axes, path: Path) -> Any:
    import torch

    from ..ops import use_backend
    from .files import write_whole

    only_batch = all(set(names) == {0} for names in axes)
    # a backend is chosen by sizes, and a program for any size must not hold the choice
    with nullcontext() if only_batch else use_backend("reference"):
        program = torch.export.export(model, inputs, dynamic_shapes=_open(axes))
    buffer = io.BytesIO()  # of a full disk torch makes the end of the process
    torch.export.save(program, buffer)
    write_whole(path, lambda file: file.write(buffer.getbuffer()))
    return torch.export.load(path).module()


def _to_onnx(
    model: "nn.Module",
    inputs: tuple["Tensor", ...],
    axes: Axes,
    path: Path,
    outputs: tuple[str, ...],
) -> Any:
    import onnxruntime
    import torch

    from ..ops import use_backend

    with use_backend("reference"):  # plain operations, that every ONNX runtime knows
        torch.onnx.export(
            model, inputs, path, dynamo=True, dynamic_shapes=_open(axes), verbose=False,
            output_names=outputs or None,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = [given.name for given in session.get_inputs()]

    def run(*tensors: "Tensor") -> list["Tensor"]:
        feed = {name: x.numpy() for name, x in zip(fed, tensors, strict=True)}
        return [torch.from_numpy(y) for y in session.run(None, feed)]

    return run


def _open(axes: Axes) -> tuple[dict, ...]:
    from torch.export import Dim

    sizes = {name: Dim(name) for names in axes for name in names.values()}
    return tuple({axis: sizes[name] for axis, name in names.items()} for names in axes)


def _resize(inputs: tuple["Tensor", ...], axes: Axes, size: int) -> tuple["Tensor", ...]:
    """Inputs whose batch has this size, and whose other open axes grow by as much."""
    import torch

    resized = []
    for x, names in zip(inputs, axes, strict=True):
        for axis, name in names.items():
            length = size if name == "batch" else x.shape[axis] + size
            x = x.index_select(axis, torch.arange(length) % x.shape[axis])
        resized.append(x)
    return tuple(resized)


def _difference(model: "nn.Module", run: Any, inputs: tuple["Tensor", ...]) -> float:
    from torch.utils._pytree import tree_leaves

    pairs = zip(tree_leaves(model(*inputs)), tree_leaves(run(*inputs)), strict=True)
    return max((want - got).abs().max().item() for want, got in pairs)
