"""What the Triton backends say of calls that they do not take; runs everywhere."""

import pytest
import torch

from core_attn import attention, use_backend, why
from core_attn.ops import short_attention
from core_attn.ops._attention import triton_backend
from core_attn.ops._attention.call import AttentionCall
from core_attn.ops._triton_host import INSTALLED, INTERPRETED


def make(tokens=5, dim=8):
    return torch.randn(2, 3, tokens, dim)


@pytest.mark.parametrize("operator", [attention, short_attention])
def test_tensors_off_the_gpu_are_refused_with_the_reason(operator):
    q = make(tokens=40)
    (choice, *_) = (c for c in why(operator, q, q, q) if c.operator == operator.__name__)
    assert choice.backend != "triton"
    expected = "use_backend" if INTERPRETED and INSTALLED else "the tensors are on cpu"
    assert expected in choice.refused["triton"]


@pytest.mark.parametrize(
    "tokens, options, taken",
    [
        (64, {}, False),
        (64, {"causal": True}, False),
        (64, {"bias": torch.zeros(1, 1, 64, 64)}, False),
        (8192, {"bias": torch.zeros(1, 1, 1, 1)}, True),
        (64, {"window": (3, 3)}, True),
        (64, {"causal": True, "bias": torch.zeros(1, 1, 64, 64)}, True),
    ],
    ids=["plain", "causal", "few", "many", "window", "causal bias"],
)
def test_sdpa_is_left_what_measured_faster_there(tokens, options, taken):
    q = torch.empty(1, 1, tokens, 8, device="meta")
    reason = triton_backend.offer(AttentionCall(q, q, q, 1.0, **options)).reason
    assert reason.startswith("the tensors are on meta")  # what it cannot take is said first
    assert (triton_backend._reluctant(AttentionCall(q, q, q, 1.0, **options)) is None) == taken


@pytest.mark.skipif(INTERPRETED, reason="the interpreter takes CPU tensors")
@pytest.mark.parametrize("operator", [attention, short_attention])
def test_forcing_says_what_is_missing(operator):
    q = make()
    with use_backend("triton"), pytest.raises(ValueError, match="need a CUDA or ROCm GPU"):
        operator(q, q, q)


@pytest.mark.skipif(not INTERPRETED, reason="set TRITON_INTERPRET=1")
class TestInterpreted:
    def refuses(self, operator, *tensors, match, **options):
        with use_backend("triton"), pytest.raises(ValueError, match=match):
            operator(*tensors, **options)

    def test_float64(self):
        q = make().double()
        self.refuses(attention, q, q, q, match="no float64")
        self.refuses(short_attention, q, q, q, match="no float64")

    def test_wide_heads(self):
        q = make(dim=65)
        self.refuses(attention, q, q, q, match="up to 64 dimensions")
        self.refuses(short_attention, q, q, q, match="not within 8 to 64")

    def test_long_problems(self):
        q = make(tokens=129)
        self.refuses(short_attention, q, q, q, match="129 tokens")

    def test_nothing_to_attend(self):
        q = make(tokens=0)
        self.refuses(attention, make(), q, q, match="no keys")
