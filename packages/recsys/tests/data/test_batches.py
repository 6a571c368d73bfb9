import numpy as np
import polars as pl
import pytest
import torch
from lightning_fabric.utilities.data import _set_sampler_epoch

from attn_recsys.data import prepare as module
from attn_recsys.data.batches import ShardDataset
from attn_recsys.data.prepare import prepare
from attn_recsys.schema import Field, Schema
from core_attn.training.data import StreamLoader


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP", 16)
    monkeypatch.setattr(module, "SHARD", 48)
    size = 150
    frame = pl.DataFrame(
        {
            "click": np.arange(size) % 2,
            "id": [str(i) for i in range(size)],
            "n": [None if i % 7 == 0 else float(i) for i in range(size)],
            "g": ["|".join("abc"[: i % 4]) for i in range(size)],
        }
    )
    fields = (
        Field("id"),
        Field("n", "numerical", transform="none"),
        Field("g", "multi", max_values=3),
    )
    split = np.zeros(size, np.uint8)
    prepared = prepare(lambda: [(frame, split)], Schema("click", fields), tmp_path / "p")
    return tmp_path / "p" / "train", prepared


def loader(folder, workers=0, **options):
    settings = {"batch_size": 8, "shuffle": True, "seed": 3, "buffer": 3} | options
    return StreamLoader(ShardDataset(*folder, **settings), workers)


def ids(batches):
    return [batch["index"][:, 0].tolist() for batch in batches]


def flat(lists):
    return [x for part in lists for x in part]


def test_an_epoch_holds_every_row_once_in_an_order_of_seed_and_epoch(folder):
    one, two = loader(folder), loader(folder)
    first = ids(one)
    assert sorted(flat(first)) == list(range(2, 152)) and len(first) == len(one) == 19
    assert ids(two) == first
    random = torch.get_rng_state()
    _set_sampler_epoch(two, 1)  # as Lightning's loop does
    assert ids(two) != first
    assert torch.equal(torch.get_rng_state(), random)  # which a resumed run continues
    assert flat(ids(loader(folder, shuffle=False))) == list(range(2, 152))


def test_cells_become_ids_and_values(folder):
    batch = next(iter(loader(folder, shuffle=False)))
    assert batch["value"][:4, 1].tolist() == [0, 1, 2, 3]  # row 0 is missing
    assert batch["value"][:4, 2:].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert batch["index"][0, 2:].tolist() == [0, 0, 0]
    assert batch["index"].dtype == torch.int64
    folder[1].layout.check(batch["index"], batch["value"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_continues_where_it_was(folder, workers):
    whole = loader(folder, workers)
    expected = ids(whole)
    cut = loader(folder, workers)
    seen = []
    for batch in cut:
        seen.append(batch)
        if len(seen) == 7:
            break
    resumed = loader(folder, workers)
    resumed.load_state_dict(cut.state_dict())
    assert ids(seen) + ids(resumed) == expected
    assert len(ids(resumed)) == len(expected)  # and the next epoch is whole again


def shares(folder, world, **options):
    parts = []
    for rank in range(world):
        part = loader(folder, **options)
        part.dataset.rank, part.dataset.world = rank, world
        batches = ids(part)
        assert len(batches) == len(part)
        parts.append(batches)
    return parts


@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_every_batch_of_one(folder, drop_last):
    options = {"batch_size": 3, "drop_last": drop_last}
    whole = ids(loader(folder, batch_size=6, drop_last=drop_last))
    one, two = shares(folder, 2, **options)
    assert len(one) == len(two)
    for batch, a, b in zip(whole, one, two, strict=True):
        assert len(a) == len(b) and len(batch) - len(a) - len(b) <= 1
        assert sorted([*a, *b]) == sorted(batch[: len(a) + len(b)])


def test_a_continued_process_goes_on_with_its_share(folder):
    part = loader(folder, batch_size=3)
    part.dataset.rank, part.dataset.world = 1, 2
    whole = ids(part)
    part.load_state_dict({"batches": 7})
    assert ids(part) == whole[7:]


def test_in_evaluation_every_row_counts_once_in_any_number_of_processes(folder):
    for world in (2, 3, 7):
        parts = shares(folder, world, batch_size=4, shuffle=False)
        assert sorted(flat(flat(parts))) == list(range(2, 152))


def test_an_epoch_without_an_update_is_refused(folder):
    message = r"part has 150 rows, batch 1,024 in 1 process\(es\), drop_last=True: nothing"
    with pytest.raises(ValueError, match=message):
        loader(folder, batch_size=1024, drop_last=True)
    assert len(loader(folder, batch_size=1024)) == 1
