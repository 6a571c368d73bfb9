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

    What an interrupted run measured is on disk and is not measured again; a result read is marked
    as `cached`.

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
        result.cached = True
        return result
    if hasattr(config, "device"):
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
        if result.parts:
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

    Raises:
        ValueError: no process at all, or a folder that is a file.
    """
    if processes < 1:
        raise ValueError(f"jobs must be at least 1, got {processes}")
    for path in (Path(folder), *Path(folder).parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"{folder} cannot be a folder of results: {path} is a file")
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Progress(*columns) as progress:
        if processes == 1 or len(jobs) == 1:
            results = []
            for experiment, config in jobs:
                note = f"{experiment.name} (about {duration(experiment.seconds(config))})"
                task = progress.add_task(note, total=len(experiment.points(config)))

                def watch(done: int, total: int, task=task):
                    progress.update(task, completed=done, total=total)

                results.append(run(experiment, config, folder=folder, watch=watch))
            return results
        seconds = sum(experiment.seconds(config) for experiment, config in jobs)
        task = progress.add_task(f"about {duration(seconds)} of one core", total=len(jobs))
        threads = max(1, (os.cpu_count() or 1) // processes)
        # The longest first, so that none is left to run alone at the end.
        order = sorted(jobs, key=lambda job: -job[0].seconds(job[1]))
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
            fresh = [not future.result() for future in names]
    results = {}
    for (experiment, config), new in zip(order, fresh, strict=True):
        result = results[experiment.name, config] = run(experiment, config, folder=folder)
        result.cached = not new
    return [results[experiment.name, config] for experiment, config in jobs]


def duration(seconds: float) -> str:
    """A time as one says it.

    Example:
        >>> duration(0.2), duration(75), duration(5400)
        ('1 s', '75 s', '1.5 h')
    """
    if seconds < 600:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _run_by_name(name: str, config: Any, folder: str) -> bool:
    """Runs it; whether it was there already."""
    from .papers import find

    return run(find(name), config, folder=folder).cached
