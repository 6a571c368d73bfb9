"""Time of the list of pairs and of the whole graph, by the number of atoms.

python -m benchmarks.neighbours [--threads 2]
"""

import argparse
import statistics

from ase.build import bulk

from attn_molecular import Batch, SoftKNN

from .peers import clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    now = clock(parser.parse_args().threads)
    knn = SoftKNN()
    print("atoms  pairs, ms  graph, ms")
    for cells in (2, 3, 5, 8, 11):
        atoms = bulk("Si", cubic=True).repeat(cells)
        atoms.rattle(0.05, seed=0)
        batch = Batch.from_atoms([atoms])
        pairs = knn.pairs(batch)
        row = []
        for call in (lambda b=batch: knn.pairs(b), lambda b=batch, p=pairs: knn(b, p)):
            times = []
            for _ in range(5):
                start = now()
                call()
                times.append(1e3 * (now() - start))
            row.append(statistics.median(times))
        print(f"{len(atoms):5d} {row[0]:10.1f} {row[1]:10.1f}")


if __name__ == "__main__":
    main()
