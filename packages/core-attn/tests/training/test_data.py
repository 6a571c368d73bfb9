import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed

from core_attn.training import data_folder, loader


def epoch(batches, number):
    batches.sampler.set_epoch(number)
    return [batch.tolist() for batch in batches]


def test_the_order_depends_on_seed_and_epoch_alone():
    make = lambda seed=0: loader(range(11), 3, shuffle=True, seed=seed)  # noqa: E731
    torch.manual_seed(0)
    first = epoch(make(), 4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert epoch(make(), 4) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert epoch(make(), 5) != first
    assert epoch(make(1), 4) != first
    assert sorted(i for batch in first for i in batch) == list(range(11))


@given(size=st.integers(1, 30), batch=st.integers(1, 8), data=st.data())
def test_an_epoch_continues_where_it_was_left(size, batch, data):
    whole = epoch(loader(range(size), batch, shuffle=True), 2)
    seen = data.draw(st.integers(0, len(whole)))
    left = loader(range(size), batch, shuffle=True)
    left.sampler.set_epoch(2)
    iterator = iter(left)
    for _ in range(seen):
        next(iterator)
    resumed = loader(range(size), batch, shuffle=True)
    resumed.load_state_dict(left.state_dict())
    assert epoch(resumed, 2) == whole[seen % len(whole) :]
    assert epoch(resumed, 2) == whole  # only once


class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.rand(())


def test_workers_draw_the_same_numbers_in_the_same_epoch():
    draws = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        draws.append(epoch(loader(Noise(), 2, shuffle=False, num_workers=1), 3))
    assert draws[0] == draws[1]


def test_processes_share_each_global_batch(monkeypatch):
    alone = epoch(loader(range(24), 6, shuffle=True), 1)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        parts.append(epoch(loader(range(24), 3, shuffle=True), 1))
    for whole, a, b in zip(alone, *parts, strict=True):
        assert sorted(whole) == sorted(a + b)


@given(size=st.integers(1, 30), batch=st.integers(1, 5), world=st.integers(1, 4))
def test_as_stored_every_sample_is_given_once_in_any_number_of_processes(size, batch, world):
    given = []
    for rank in range(world):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed, "is_initialized", lambda: True)
            patch.setattr(distributed, "get_world_size", lambda: world)
            patch.setattr(distributed, "get_rank", lambda rank=rank: rank)
            part = loader(range(size), batch, shuffle=False)
            batches = epoch(part, 0)
        assert len(batches) == len(part)
        given += [i for one in batches for i in one]
    assert sorted(given) == list(range(size))


def test_a_loader_that_would_give_nothing_is_refused():
    with pytest.raises(ValueError, match="range has no samples"):
        loader(range(0), 3, shuffle=True)
    with pytest.raises(ValueError, match="batch_size = 8 in 1 process"):
        loader(range(7), 8, shuffle=True, drop_last=True)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        loader(range(7), 0, shuffle=True)


def test_a_data_folder_must_exist_and_hold_what_is_needed(tmp_path):
    (tmp_path / "a.txt").touch()
    assert data_folder(str(tmp_path), "*.txt") == tmp_path
    with pytest.raises(ValueError, match=r"nothing that matches '\*\.png'"):
        data_folder(tmp_path, "*.png")
    with pytest.raises(NotADirectoryError, match=r"a\.txt is a file"):
        data_folder(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="b does not exist"):
        data_folder(tmp_path / "b")
