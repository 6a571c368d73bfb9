"""`export`: a trained network as a torch.export program or an ONNX file, compared with eager."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn


def export(
    ckpt: str,
    format: Literal["onnx", "torch"] = "onnx",
    out: str | None = None,
    tolerance: float = 1e-4,
) -> int:
    """Write a checkpoint's network as ONNX or torch.export, for any batch size, and compare it.

    Args:
        ckpt: the checkpoint.
        format: "onnx", for onnxruntime, or "torch", for torch.export.load.
        out: the file to write; by default beside the checkpoint.
        tolerance: the largest difference allowed between an exported and an original output.

    Returns:
        0, or 1 where some output differs by more than the tolerance.

    Raises:
        NotImplementedError: the task has no `example_inputs`.
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
    model, inputs = task.exported().eval(), task.example_inputs()
    path = Path(out or Path(ckpt).with_suffix({"onnx": ".onnx", "torch": ".pt2"}[format]))
    with torch.no_grad():
        run = _to_onnx(model, inputs, path) if format == "onnx" else _to_torch(model, inputs, path)
        difference = max(_difference(model, run, _resize(inputs, size)) for size in (1, 2, 5))
    agrees = difference <= tolerance
    print(f"{path}: largest difference {difference:.2g} at batch sizes 1, 2, 5", end="")
    print("" if agrees else f", beyond the tolerance of {tolerance:.2g}")
    return 0 if agrees else 1


def _to_torch(model: "nn.Module", inputs: tuple["Tensor", ...], path: Path) -> Any:
    import torch

    program = torch.export.export(model, inputs, dynamic_shapes=_any_batch(inputs))
    torch.export.save(program, path)
    return torch.export.load(path).module()


def _to_onnx(model: "nn.Module", inputs: tuple["Tensor", ...], path: Path) -> Any:
    import onnxruntime
    import torch

    from ..ops import use_backend

    with use_backend("reference"):  # plain operations, that every ONNX runtime knows
        torch.onnx.export(
            model, inputs, path, dynamo=True, dynamic_shapes=_any_batch(inputs), verbose=False
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(*tensors: "Tensor") -> list["Tensor"]:
        feed = {name: x.numpy() for name, x in zip(names, tensors, strict=True)}
        return [torch.from_numpy(y) for y in session.run(None, feed)]

    return run


def _any_batch(inputs: tuple["Tensor", ...]) -> tuple[dict, ...]:
    from torch.export import Dim

    batch = Dim("batch")
    return tuple({0: batch} for _ in inputs)


def _resize(inputs: tuple["Tensor", ...], size: int) -> tuple["Tensor", ...]:
    return tuple(x[[i % len(x) for i in range(size)]] for x in inputs)


def _difference(model: "nn.Module", run: Any, inputs: tuple["Tensor", ...]) -> float:
    from torch.utils._pytree import tree_leaves

    pairs = zip(tree_leaves(model(*inputs)), tree_leaves(run(*inputs)), strict=True)
    return max((want - got).abs().max().item() for want, got in pairs)
