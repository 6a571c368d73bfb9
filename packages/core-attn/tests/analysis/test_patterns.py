import pytest
import torch

from core_attn.analysis import Layout, MapSample, find_patterns, pattern_name

LAYOUT, SMALL = Layout((6, 6), prefix=1), Layout((5, 5), prefix=1)


def planted(kind, generator, layout=LAYOUT):
    """An attention matrix of a known kind, with noise."""
    places, hops = layout.places(), layout.hops()
    tokens = len(hops) + 1
    same = places[:, None] == places
    among = {
        "self": hops == 0,
        "local ring": hops == 1,
        "row": same[..., 0],
        "column": same[..., 1],
        "uniform": hops >= 0,
        "class sink": hops >= 0,
    }[kind].float()
    noise = 0.9 + 0.2 * torch.rand(tokens, tokens, generator=generator)
    weights = torch.full((tokens, tokens), 1e-3)
    weights[1:, 1:] += among / among.sum(-1, keepdim=True)
    if kind == "class sink":
        weights[1:, 1:] *= 0.1
        weights[:, 0] += 1.0
    weights = weights * noise
    return weights / weights.sum(-1, keepdim=True)


KINDS = ("self", "local ring", "row", "column", "uniform", "class sink")


@pytest.mark.parametrize("kind", KINDS)
def test_the_rules_name_planted_kinds(kind):
    assert pattern_name(planted(kind, torch.Generator().manual_seed(0)), LAYOUT) == kind


def test_one_key_and_content_have_their_names():
    stripe = torch.full((37, 37), 0.2 / 36)
    stripe[:, 7] = 0.8
    assert pattern_name(stripe, LAYOUT) == "single key"
    sharp = (torch.randn(37, 37, generator=torch.Generator().manual_seed(0)) * 3).softmax(-1)
    assert pattern_name(sharp, LAYOUT) == "content"


def test_clusters_of_planted_kinds_are_pure():
    generator = torch.Generator().manual_seed(0)
    kinds = KINDS[:5]  # a class sink differs from uniform attention outside of the patches only
    maps = torch.stack(
        [torch.stack([planted(kind, generator, SMALL) for kind in kinds]) for _ in range(12)]
    )
    sample = MapSample(SMALL)
    sample.add("layer", range(12), maps)
    found = find_patterns(sample, epochs=30)
    table = found.table()
    purity = sum(
        table.filter(cluster=cluster)["head"].value_counts()["count"].max()
        for cluster in table["cluster"].unique()
    )
    assert purity / table.height > 0.9
    assert found.consistency()["cluster_share"].min() > 0.9
    assert found.gallery(3).shape[:2] == (3, 3)


def test_maps_that_do_not_fit_are_refused_with_the_numbers():
    sample = MapSample(LAYOUT)
    with pytest.raises(ValueError, match=r"a: .*17.*6x6 = 36"):
        sample.add("a", [0], torch.full((1, 2, 17, 17), 1 / 17))
    with pytest.raises(ValueError, match="NaN"):
        sample.add("a", [0], torch.full((1, 2, 37, 37), torch.nan))
    with pytest.raises(ValueError, match="sums to 0.5"):
        sample.add("a", [0], torch.full((1, 2, 37, 37), 0.5 / 37))
    sample.add("a", [0], torch.full((1, 2, 37, 37), 1 / 37))
    with pytest.raises(ValueError, match="too few"):
        find_patterns(sample)
