import jaxtyping
import pytest
import torch

from core_attn.ops._triton_host import INSTALLED, INTERPRETED


@pytest.fixture(autouse=True)
def empty_memory_is_nan():
    """Leaves torch's deterministic mode off: lists of keys have no kernel in it."""


@pytest.fixture(autouse=True)
def annotations_are_checked():
    """Leaves functions as they are written, to be traced and interpreted; tests/ops checks them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(
    params=[
        pytest.param(
            "cpu",
            marks=pytest.mark.skipif(
                not (INSTALLED and INTERPRETED),
                reason="the interpreter of triton is off: set TRITON_INTERPRET=1",
            ),
            id="interpreter",
        ),
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(
                INTERPRETED or not torch.cuda.is_available(), reason="torch sees no GPU"
            ),
            id="gpu",
        ),
    ]
)
def device(request):
    """Where the kernels run: interpreted on the CPU, or compiled on a GPU."""
    return request.param
