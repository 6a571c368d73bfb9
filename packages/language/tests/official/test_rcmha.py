"""The converter on the relatives, of which no case is recorded."""

import pytest
from models_under_test import ids_of, small

from attn_language.official import rcmha


@pytest.mark.parametrize("name, mark", [("rcmha", "query.0.linear"), ("rmha", "query.linear")])
def test_relatives_come_and_go_under_their_official_names(name, mark):
    model = small(name, heads=2, depth=3)
    official = rcmha.to_official(model.state_dict(), model.config)
    assert f"transformer.layers.2.self_attn.{mark}.weight" in official
    config = rcmha.config_from({"heads": 2}, official)
    again = config.build().eval()
    again.load_state_dict(rcmha.from_official(official, config))
    assert again(ids_of()).equal(model(ids_of()))
