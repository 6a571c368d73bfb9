import pytest
import torch

pytest_plugins = ["core_attn.testing.plugin"]


def untrained(*args, **settings):
    """The package's own, imported when its annotations are checked."""
    from attn_molecular.testing import untrained

    return untrained(*args, **settings)


@pytest.fixture(autouse=True)
def one_thread():
    """Two workers share two cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def molecular():
    """A potential for H, C and O, gradient forces."""
    return untrained()


@pytest.fixture(scope="session")
def silicon():
    """A potential for Si, gradient forces."""
    return untrained((14,), neighbors=16, cutoff=5.0)


@pytest.fixture(scope="session")
def direct():
    """A potential for H, C and O, direct forces."""
    return untrained(forces="direct")
