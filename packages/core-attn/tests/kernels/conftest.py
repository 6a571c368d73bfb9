import pytest
import torch

from core_attn.ops._triton_host import INSTALLED, INTERPRETED


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
