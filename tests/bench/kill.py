"""Both programs killed at random points under load: the means of `make torture`, without its plants."""

import tempfile
from pathlib import Path
from typing import Any

from tests.faults import kill
from tests.faults.together import together

SEED = 1


def points(kills: int, jobs: int) -> dict[str, Any]:
    """So many kills, and what the campaign's judges find: losses, disorder, what was done twice."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        rounds = [(str(Path(scratch)), SEED + at, "") for at in range(-(-kills // (2 * kill.KILLS)))]
        found = list(together(kill.once, rounds, jobs))
    return {
        "kills": sum(each for each, _ in found),
        "files": len(rounds) * kill.FILES,
        "wrong": sum(len(wrong) for _, wrong in found),
        "words": [words for _, wrong in found for words in wrong],
    }
