"""What every means has in common: how large, what it did and found, which planted bugs it caught."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Size:
    """How far to go: `points` of the means' own unit, from this seed, with files only under `scratch`."""

    points: int
    seed: int
    scratch: Path
    jobs: int = 2


@dataclass
class Figures:
    """What a means did. A means that catches no planted bug, or that had nothing to do, has failed."""

    points: int = 0  # faults that were really injected, each followed by a restart and a judgement
    found: list[str] = field(default_factory=list)  # one line a finding: where, what, how to see it again
    caught: dict[str, bool] = field(default_factory=dict)  # planted bug -> was it found?
    detail: dict[str, int | float | str] = field(default_factory=dict)  # figures worth a line in the report


@dataclass(frozen=True)
class Means:
    """One way to break something; a module in this package holds one as `MEANS`."""

    name: str  # as on the command line
    layer: str  # the line of the table in docs/reliability.md
    unit: str  # what a point is
    small: int  # points in `.ci/run`
    full: int  # points in `make torture`
    needs: Callable[[], str | None]  # why it can't be done on this machine, or None
    run: Callable[[Size], Figures]


def every_name() -> list[str]:
    """Every means there is. Other modules here are scripts, some for another Python: they aren't imported."""
    return sorted(path.stem for path in HERE.glob("*.py") if re.search(r"^MEANS\b", path.read_text(), re.MULTILINE))
