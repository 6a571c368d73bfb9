"""Every optimizer in two processes, each with half of the batch, beside one with all of it."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from attn_recsys import Layout, create, make_optimizer
from attn_recsys.optim import SPARSE, for_processes
from attn_recsys.optim.pair import NAMES

LAYOUT = Layout.plain(3, rows=31)
BATCH = 8


def losses(name, model, index, label, forward):
    """Of four steps."""
    optimizer = make_optimizer(model, name, lr=1e-2)
    found = []
    for step in range(4):
        loss = F.binary_cross_entropy_with_logits(
            forward(index[step], torch.ones(index[step].shape)), label[step]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return torch.tensor(found)


def made(name):
    torch.manual_seed(0)
    model = create("autoint", LAYOUT, dim=4, block_widths=(4,), sparse=name in SPARSE)
    index = torch.randint(1, 31, (4, BATCH, 3))
    return model, index, torch.randint(0, 2, (4, BATCH)).float()


def half(rank, port, names):
    """Prints the losses of both processes together."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    results = {}
    for name in names:
        model, index, label = made(name)
        parallel = DistributedDataParallel(model)
        found = losses(name, model, index[:, rank::2], label[:, rank::2], parallel)
        distributed.all_reduce(found)
        results[name] = (found / 2).tolist()
    distributed.destroy_process_group()
    print(json.dumps(results))


def test_every_optimizer_has_the_curve_of_one_process_or_says_that_it_is_for_one():
    alone = [name for name in NAMES if name in SPARSE and name != "deferred_adam"]
    for name in alone:
        with pytest.raises(ValueError, match=f"optimizer {name} is for one process; with several"):
            for_processes(name)
    both = {name: for_processes(name) for name in NAMES if name not in alone}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = sorted(set(both.values()))
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(port), *names], stdout=subprocess.PIPE
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    found = json.loads(told[0])
    for name, dense in both.items():
        model, index, label = made(name)
        expected = losses(name, model, index, label, model)
        torch.testing.assert_close(torch.tensor(found[dense]), expected, rtol=1e-5, atol=1e-5)
        assert expected[0] != expected[-1]


if __name__ == "__main__":
    half(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
