import pytest
import torch

from attn_molecular import create
from attn_molecular.potential import Potential, shipped


@pytest.fixture(autouse=True)
def one_thread():
    """Two workers share two cores."""
    torch.set_num_threads(1)


def untrained(symbols=(1, 6, 8), seed=0, scale=0.5, **changes):
    """A small potential with random weights."""
    torch.manual_seed(seed)
    settings = {
        "dim": 32, "heads": 2, "distance_size": 24, "distance_dim": 24, "smooth_order": True,
    } | changes  # fmt: skip
    network = create("escaip_tiny", **settings)
    with torch.no_grad():  # embeddings start at nearly nothing: tell the elements apart
        for name, p in network.named_parameters():
            if "_atom" in name:
                p.normal_(std=0.5)
    references = torch.zeros(network.config.elements)
    references[list(symbols)] = -torch.arange(1.0, len(symbols) + 1)
    return Potential(network.eval(), references, scale, list(symbols))


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


def trained(name):
    """A shipped checkpoint; skips where it is not there."""
    if name not in shipped():
        pytest.skip(f"the checkpoint {name} is not in this checkout")
    return name
