import pytest
import torch

from core_attn.analysis import Profile, profile_table, whole_folder


def test_numbers_are_means_over_queries_that_have_keys():
    x = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    x[0, :, 3] = 0  # padding
    profile = Profile()
    profile.update(x[:1])
    profile.update(x[1:])
    rows = [[r for s in range(3) for r in x[s, h] if r.sum() > 0] for h in range(2)]
    for h in range(2):
        entropy = sum(-(r * r.log()).sum() for r in rows[h]) / 11
        torch.testing.assert_close(profile.numbers()["entropy"][h], entropy)
        torch.testing.assert_close(
            profile.numbers()["largest"][h], torch.stack([r.max() for r in rows[h]]).mean()
        )
    torch.testing.assert_close(profile.compute(), x.mean(0))
    assert profile.softmax


def test_other_sizes_and_cross_attention():
    profile = Profile()
    profile.update(torch.full((1, 2, 3, 5), 0.2))
    assert set(profile.numbers()) == {"entropy", "largest"}
    profile.update(torch.full((1, 2, 4, 5), 0.2))
    assert not profile.has_map
    profile.update(torch.full((1, 2, 4, 5), 0.2))
    assert not profile.has_map  # still: sizes differed
    with pytest.raises(ValueError, match="no mean map"):
        profile.compute()
    assert profile_table({"a": profile})["distance"].to_list() == [None, None]


@pytest.mark.refuses
def test_what_is_no_softmax_is_said_and_nan_refused():
    profile = Profile()
    profile.update(torch.full((1, 1, 2, 2), 0.9))
    assert not profile.softmax
    with pytest.raises(ValueError, match="NaN"):
        profile.update(torch.full((1, 1, 2, 2), torch.nan))
    with pytest.raises(ValueError, match="got 3 axes"):
        profile.update(torch.ones(2, 2, 2))


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError), whole_folder(out) as folder:
        (folder / "a").write_text("half")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    out.mkdir()
    (out / "mine").write_text("stays")
    (out / "a").write_text("old")
    with whole_folder(out) as folder:
        (folder / "a").write_text("new")
    assert {x.name: x.read_text() for x in out.iterdir()} == {"mine": "stays", "a": "new"}
    assert [x.name for x in tmp_path.iterdir()] == ["out"]
