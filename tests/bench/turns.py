"""Measurements in turns, so that what else the machine does meets all of them alike; medians."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_turns(rounds: int, turns: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Each of them so often, in every round another one first: name → what came of it, round by round."""
    found: dict[str, list[T]] = {name: [] for name in turns}
    names = list(turns)
    for number in range(rounds):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            found[name].append(turns[name]())
    return found


def middle(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Median of the rounds' own ratios."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def high(values: Sequence[float]) -> float:
    """The 95th percentile of what was seen: of a few values, nearly the largest."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]
