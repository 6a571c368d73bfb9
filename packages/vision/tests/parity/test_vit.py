from contextlib import nullcontext
from pathlib import Path

import pytest

from attn_vision import VisionTransformer
from attn_vision.official import vit
from core_attn import use_backend
from core_attn.testing import load_case, parity_cases


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize(
    "path", parity_cases("vit", Path(__file__).parent / "cases"), ids=lambda p: p.stem
)
def test_official_outputs_and_gradients(path, backend, agrees):
    case = load_case(path)
    config = vit.config_from(case.config, case.params)
    model = VisionTransformer(config).eval()
    model.load_state_dict(vit.from_official(case.params, config))
    assert vit.to_official(model.state_dict(), config).keys() == case.params.keys()
    with use_backend(backend) if backend else nullcontext():
        agrees(case, model)
