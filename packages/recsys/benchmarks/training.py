"""Training steps beside the peers': python -m benchmarks.training

39 fields, 999,999 rows, dim 16, 3 blocks, 2 heads, batch 1024. Every peer stands beside ours of the
same variant and width. All take turns in one process, so that a busy machine slows them alike; the
table shows medians of CPU time and of wall time, and their ratio. Peak memory is measured in a
process of its own. Peers that are not installed are reported as missing.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
import warnings

import torch

from . import peers

FACTS = {
    # name: (maker, ours of the same variant)
    "fuxictr": (lambda s: peers.fuxictr(s), "ours fuxictr 64"),
    "recbole": (lambda s: peers.recbole(s), "ours official 64"),
    "torchrec": (lambda s: peers.torchrec(s), "ours official 64"),
    "torchrec fused": (lambda s: peers.torchrec(s, fused=True), "ours official 64 rowwise"),
    "deepctr-torch": (lambda s: peers.deepctr(s), "ours deepctr 16"),
    "torch-rechub": (lambda s: peers.rechub(s), "ours rechub 16"),
}
OURS = {
    "ours official 64": lambda s: peers.ours(s, "autoint", 64),
    "ours official 64 rowwise": lambda s: peers.ours(s, "autoint", 64, "row_adagrad"),
    "ours official 64 dense": lambda s: peers.ours(s, "autoint", 64, "adam_tf"),
    "ours fuxictr 64": lambda s: peers.ours(s, "autoint_fuxictr", 64),
    "ours deepctr 16": lambda s: peers.ours(s, "autoint_paper", 16, linear_term=True),
    "ours rechub 16": lambda s: peers.ours(s, "autoint_paper", 16, scale=True, linear_term=False),
}
MAKERS = OURS | {name: maker for name, (maker, _) in FACTS.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=list(MAKERS))
    parser.add_argument("--memory-of", help="internal: one implementation, for its peak memory")
    parser.add_argument("--no-memory", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    shape = peers.Shape()
    if args.memory_of:
        print(peak_memory(args.memory_of, shape, args.batch))
        return
    steps, missing = {}, {}
    for name in args.only:
        torch.manual_seed(0)
        try:
            steps[name] = MAKERS[name](shape)
        except ImportError as error:
            missing[name] = str(error).splitlines()[0]
    for threads in args.threads:
        torch.set_num_threads(threads)
        print(f"\n{threads} thread(s), batch {args.batch}, median of {args.rounds} rounds")
        show(measure(steps, shape, args.batch, args.rounds))
    for name, reason in missing.items():
        print(f"{name}: missing ({reason})")
    if not args.no_memory:
        print("\npeak memory of a process that takes 5 steps")
        for name in steps:
            command = [sys.executable, "-m", "benchmarks.training", "--memory-of", name]
            command += ["--batch", str(args.batch)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(f"{name:<26} {out.split()[-1]:>6} MiB", flush=True)


def batches(shape, batch, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        ids = torch.randint(shape.size, (batch, shape.fields), generator=generator)
        yield ids, torch.randint(2, (batch,), generator=generator).float()


def measure(steps, shape, batch, rounds):
    times = {name: [] for name in steps}
    for number, (ids, labels) in enumerate(batches(shape, batch, rounds + 1)):
        for name, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step(ids, labels)
            if number:  # the first round warms up
                times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return times


def show(times):
    cpu = {name: statistics.median(t[0] for t in found) for name, found in times.items()}
    wall = {name: statistics.median(t[1] for t in found) for name, found in times.items()}
    print(f"{'':<26} {'CPU ms':>8} {'wall ms':>8}   peer / ours (CPU, wall)")
    for name in times:
        line = f"{name:<26} {1e3 * cpu[name]:>8.0f} {1e3 * wall[name]:>8.0f}"
        twin = FACTS[name][1] if name in FACTS else None
        if twin in times:
            line += f"   {cpu[name] / cpu[twin]:.2f}  {wall[name] / wall[twin]:.2f}  ({twin})"
        print(line, flush=True)


def peak_memory(name, shape, batch):
    torch.set_num_threads(1)
    step = MAKERS[name](shape)
    for ids, labels in batches(shape, batch, 5):
        step(ids, labels)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
