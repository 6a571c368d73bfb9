"""Runs experiments: point by point with a progress bar, cached, resumed, several at a time."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import store
from .experiment import Experiment, Result

SAVE_EVERY = 5.0  # seconds


def run(
    experiment: Experiment,
    config: Any = None,
    *,
    folder: str | Path = "runs/theory",
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Result:
    """Measures an experiment, or reads it where it was measured with this very configuration.

    What an interrupted run measured is on disk and is not measured again.

    Args:
        experiment: what to run.
        config: with what; the full run by default.
        folder: where results lie.
        watch: told the number of points done and their total after each.

    Raises:
        ValueError: the configuration asks for what cannot be, or for a device that is not there.

    Example:
        >>> import tempfile
        >>> from attn_theory.papers import find
        >>> experiment = find("pavlov_memory.conditioning")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run(experiment, experiment.quick, folder=folder).complete
        True
    """
    config = experiment.config if config is None else config
    stem = store.path(Path(folder), experiment, config)
    result = store.load(experiment, config, stem)
    watch(len(result.parts), result.total)
    if result.complete:
        return result
    _check_device(config.device)
    saved = time.monotonic()
    try:
        for point in experiment.points(config)[len(result.parts) :]:
            begin = time.monotonic()
            result.parts.append(experiment.measure(config, point))
            result.seconds += time.monotonic() - begin
            watch(len(result.parts), result.total)
            if time.monotonic() - saved > SAVE_EVERY:
                store.save(result, stem)
                saved = time.monotonic()
    finally:
        store.save(result, stem)
    return result


def _check_device(name: str) -> None:
    try:
        torch.empty(1, device=name)
    except (AssertionError, RuntimeError) as error:  # the first where torch is built without it
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}") from error


def run_all(
    jobs: Sequence[tuple[Experiment, Any]],
    *,
    folder: str | Path = "runs/theory",
    processes: int = 1,
) -> list[Result]:
    """Runs several experiments behind one progress bar, in as many processes as told.

    Args:
        jobs: experiments, each with its configuration.
        folder: where results lie.
        processes: experiments at a time; each gets an equal share of the cores.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Progress(*columns) as progress:
        if processes == 1 or len(jobs) == 1:
            results = []
            for experiment, config in jobs:
                note = f"{experiment.name} (about {experiment.budget:.0f} s)"
                task = progress.add_task(note, total=len(experiment.points(config)))

                def watch(done: int, total: int, task=task):
                    progress.update(task, completed=done, total=total)

                results.append(run(experiment, config, folder=folder, watch=watch))
            return results
        budget = sum(experiment.budget for experiment, _ in jobs)
        task = progress.add_task(f"at most about {budget:.0f} s of one core", total=len(jobs))
        threads = max(1, (os.cpu_count() or 1) // processes)
        # The longest first, so that none is left to run alone at the end.
        order = sorted(jobs, key=lambda job: -job[0].budget)
        # Forking a process that has used torch's threads may hang.
        with ProcessPoolExecutor(
            processes, get_context("spawn"), torch.set_num_threads, (threads,)
        ) as pool:
            names = [
                pool.submit(_run_by_name, experiment.name, config, str(folder))
                for experiment, config in order
            ]
            for future in as_completed(names):
                future.result()
                progress.advance(task)
    return [run(experiment, config, folder=folder) for experiment, config in jobs]


def _run_by_name(name: str, config: Any, folder: str) -> None:
    from .papers import find

    run(find(name), config, folder=folder)
