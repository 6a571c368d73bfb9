"""The plugin that checks annotations leaves what triton compiles as it is written."""

import pytest


def test_kernels_keep_their_globals():
    kernels = pytest.importorskip("core_attn.ops._attention.triton_forward")
    assert "tl" in kernels.attention_forward.fn.__globals__
    assert "tl" in kernels.forbid.fn.__globals__
