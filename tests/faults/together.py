"""Work on all cores: the same function over many seeds, in child processes, results in the order of the seeds."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Got = TypeVar("Got")


def together(work: Callable[[Given], Got], given: Iterable[Given], jobs: int) -> Iterator[Got]:
    """`work` must stand at the top of a module, and what it gets and gives must be plain data."""
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), max_tasks_per_child=None) as pool:
        yield from pool.map(work, given)


def one(work: Callable[[Given], Got], given: Given) -> Got:
    """In a child process, so that what it plants in our modules goes with it."""
    return next(together(work, [given], 1))
