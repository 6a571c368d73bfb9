"""Training steps beside the peers': python -m benchmarks.training

39 fields, 999,999 rows, dim 16, 3 blocks, 2 heads, batch 1024. Every peer stands beside ours of the
same variant and width, each in a process of its own as its users run it; they take turns step by
step, so that a busy machine slows them alike. The table shows medians of CPU time and of wall time,
their ratio, and the peak memory of the process. With --lend-memory the peers' processes reuse freed
memory as ours do, by core_attn's `keep_freed_memory`. Peers that are not installed are reported.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
import warnings

import torch

from . import peers

FACTS = {
    # name: (maker, ours of the same variant)
    "fuxictr": (lambda s: peers.fuxictr(s), "ours fuxictr 64"),
    "fuxictr unclipped": (lambda s: peers.fuxictr(s, clip=False), "ours fuxictr 64"),
    "fuxictr, fused Adam": (lambda s: peers.fuxictr(s, lend=True), "ours fuxictr 64"),
    "recbole": (lambda s: peers.recbole(s), "ours recbole 64"),
    "torchrec": (lambda s: peers.torchrec(s), "ours official 64"),
    "torchrec, fused Adam": (lambda s: peers.torchrec(s, lend=True), "ours official 64"),
    "torchrec fused": (
        lambda s: peers.torchrec(s, fused=True, lend=True),
        "ours official 64 rowwise",
    ),
    "deepctr-torch": (lambda s: peers.deepctr(s), "ours deepctr 16"),
    "deepctr-torch, fused Adam": (lambda s: peers.deepctr(s, lend=True), "ours deepctr 16"),
    "torch-rechub": (lambda s: peers.rechub(s), "ours rechub 16"),
    "torch-rechub, fused Adam": (lambda s: peers.rechub(s, lend=True), "ours rechub 16"),
}
OURS = {
    "ours official 64": lambda s: peers.ours(s, "autoint", 64),
    "ours official 64 rowwise": lambda s: peers.ours(s, "autoint", 64, "row_adagrad"),
    "ours official 64 dense": lambda s: peers.ours(s, "autoint", 64, "adam_tf"),
    "ours fuxictr 64": lambda s: peers.ours(s, "autoint_fuxictr", 64),
    "ours recbole 64": lambda s: peers.ours(s, "autoint_paper", 64, **peers.LIKE_RECBOLE),
    "ours deepctr 16": lambda s: peers.ours(s, "autoint_paper", 16, linear_term=True),
    "ours rechub 16": lambda s: peers.ours(s, "autoint_paper", 16, scale=True, linear_term=False),
}
MAKERS = OURS | {name: maker for name, (maker, _) in FACTS.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=list(MAKERS), choices=list(MAKERS))
    parser.add_argument("--lend-memory", action="store_true")
    args = parser.parse_args()
    for threads in args.threads:
        print(f"\n{threads} thread(s), batch {args.batch}, median of {args.rounds} rounds")
        workers = {name: Worker(name, threads, args.lend_memory) for name in args.only}
        workers = {name: worker for name, worker in workers.items() if worker.found(name)}
        show(measure(workers, args.batch, args.rounds))
        for worker in workers.values():
            worker.stop()


class Worker:
    """An implementation in a process of its own."""

    def __init__(self, name, threads, lend_memory):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        job = (name, threads, lend_memory, theirs)
        self.process = context.Process(target=work, args=job, daemon=True)
        self.process.start()

    def found(self, name):
        missing = self.pipe.recv()
        if missing:
            print(f"{name}: missing ({missing})")
        return not missing

    def step(self, batch):
        """(CPU seconds, wall seconds, peak MiB) after a step."""
        self.pipe.send(batch)
        return self.pipe.recv()

    def stop(self):
        self.pipe.send(None)
        self.process.join()


def work(name, threads, lend_memory, pipe):
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if lend_memory:
        from core_attn.allocator import keep_freed_memory

        keep_freed_memory()
    shape = peers.Shape()
    try:
        step = MAKERS[name](shape)
    except ImportError as error:
        pipe.send(str(error).splitlines()[0])
        return
    pipe.send(None)
    generator = torch.Generator().manual_seed(0)
    while batch := pipe.recv():
        ids = torch.randint(shape.size, (batch, shape.fields), generator=generator)
        labels = torch.randint(2, (batch,), generator=generator).float()
        wall, cpu = time.perf_counter(), time.process_time()
        step(ids, labels)
        took = time.process_time() - cpu, time.perf_counter() - wall
        pipe.send((*took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(workers, batch, rounds):
    times = {name: [] for name in workers}
    for number in range(rounds + 2):
        for name, worker in workers.items():
            took = worker.step(batch)
            if number > 1:  # two rounds warm up
                times[name].append(took)
    return times


def show(times):
    median = {
        name: [statistics.median(column) for column in zip(*found, strict=True)]
        for name, found in times.items()
    }
    print(f"{'':<26} {'CPU ms':>8} {'wall ms':>8} {'peak MiB':>9}   peer / ours (CPU, wall)")
    for name, (cpu, wall, peak) in median.items():
        line = f"{name:<26} {1e3 * cpu:>8.0f} {1e3 * wall:>8.0f} {peak:>9,.0f}"
        twin = FACTS[name][1] if name in FACTS else None
        if twin in median:
            line += f"   {cpu / median[twin][0]:.2f}  {wall / median[twin][1]:.2f}  ({twin})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
