"""What the Routing Transformer's own definition asks for: clusters, centroids, membership."""

import pytest
import torch
from models_under_test import ids_of, small
from torch.nn import functional as F

from attn_language import create
from attn_language.models.centroids import Centroids, init_centroids, kmeans_step, update_centroids
from attn_language.models.routing import RoutedHeads, RoutingConfig
from core_attn import attention, losses


@pytest.mark.parametrize("selection", ["topk", "causal"])
@torch.no_grad()
def test_one_cluster_of_the_whole_text_is_dense_attention(selection):
    config = RoutingConfig(
        dim=16, heads=2, clusters=1, window=9, relative=False, selection=selection
    )
    layer = RoutedHeads(config, 2)
    q, v = torch.randn(2, 1, 2, 9, 8).unbind(0)
    normed = F.layer_norm(q, (8,), eps=1e-6)
    dense = attention(normed, normed, v, causal=True, scale=1.0) / 1.01
    torch.testing.assert_close(layer(q, None, v)[0].transpose(1, 2), dense, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_topk_membership_looks_ahead_as_the_documentation_says():
    model, ids = small("routing_topk"), ids_of()
    seen = False
    for token in range(SIZE := 23):
        changed = ids.clone()
        changed[:, -1] = token % SIZE
        seen |= not model(ids)[:, :-1].equal(model(changed)[:, :-1])
    assert seen


@torch.no_grad()
@pytest.mark.parametrize("style", ["google", "lucidrains"])
def test_centroids_find_blobs(style):
    torch.manual_seed(1)
    directions = F.normalize(torch.randn(3, 8), dim=-1)
    directions -= directions.mean(-1, keepdim=True)
    x = (4 * directions)[torch.randint(3, (200,))] + 0.2 * torch.randn(200, 8)
    centroids = Centroids(1, 3, 8, style=style, decay=0.8, ema_count_init=1.0).train()
    centroids.initialize(centroids.normed(x[None, None]))
    for _ in range(40):
        centroids(x[None, None])
        centroids.update()
    found = F.normalize(centroids.means[0], dim=-1) @ F.normalize(directions, dim=-1).T
    assert found.max(0).values.min() > 0.95
    nearest = centroids(x[None, None]).argmax(-1).flatten()
    assert torch.bincount(nearest, minlength=3).min() > 30


def test_centroids_move_once_per_step_and_leave_padding_out():
    torch.manual_seed(0)
    centroids = Centroids(2, 3, 4, decay=0.5).train()
    x = torch.randn(1, 2, 6, 4)
    padded = torch.cat((x, 100 * torch.ones(1, 2, 2, 4)), 2)
    valid = torch.tensor([[True] * 6 + [False] * 2])
    other = Centroids(2, 3, 4, decay=0.5).train()
    other.load_state_dict(centroids.state_dict())
    centroids(padded, valid=valid)
    centroids(padded, valid=valid)  # again, as under checkpointing
    other(x)
    centroids.update()
    other.update()
    torch.testing.assert_close(centroids.means, other.means)
    before = centroids.means.clone()
    centroids.update()
    assert centroids.means.equal(before)
    torch.testing.assert_close(losses(centroids)["commitment"], losses(other)["commitment"])


def test_centroids_of_the_port_come_from_data_and_are_saved():
    model = create("routing_port", vocab=23, dim=16, heads=2, local_heads=1, window=6).eval()
    ids = ids_of(tokens=24)
    with pytest.raises(ValueError, match="centroids are not initialized: run a training step"):
        model(ids)
    init_centroids(model, ids)
    again = create("routing_port", vocab=23, dim=16, heads=2, local_heads=1, window=6).eval()
    again.load_state_dict(model.state_dict())
    assert model(ids).equal(again(ids))
    model.train()(ids_of(tokens=24, seed=9))
    update_centroids(model)
    means = [m.means for m in model.modules() if isinstance(m, Centroids)]
    assert not any(
        a.equal(b.means)
        for a, b in zip(
            means, (m for m in again.modules() if isinstance(m, Centroids)), strict=True
        )
    )


def test_an_empty_cluster_keeps_its_mean():
    means = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    x = torch.tensor([[[[2.0, 0.1], [1.0, 0.0]]]])
    assert kmeans_step(x, means)[0, 1].equal(means[0, 1])
