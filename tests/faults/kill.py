"""
Both real programs killed at random under load: the campaign, round after round, each with its own seed.

A round is 80 files in eight seconds, a sandbox that fails a third of the requests, a line that is cut, and six kills of
each program. `make campaign` is one long round of the same.
"""

import argparse
import contextlib
import io
from pathlib import Path

from tests.campaign.__main__ import campaign
from tests.faults.means import Figures, Means, Size
from tests.faults.together import together
from tests.planted import BUGS

KILLS, FILES, SECONDS = 6, 80, 8.0  # of each program, in one round
PATIENCE_S = 120.0  # for all of it, on a busy machine
TRIES = 4  # rounds in which a planted bug has to show: some need a kill at the right moment
PLANTS = ("hasty", "blind", "unlinked")


def once(given: tuple[str, int, str]) -> tuple[int, list[str]]:
    """One round: how many times something was killed, and what was wrong."""
    place, seed, plant = given
    chosen = argparse.Namespace(
        seed=seed, files=FILES, kills=KILLS, share=0.33, timeout=0.5, seconds=SECONDS, hurry=True, patience=PATIENCE_S
    )
    with contextlib.redirect_stdout(io.StringIO()):
        verdict = campaign(chosen, _made(place, seed, plant), plant)
    wrong = [f"{check}: {words}" for check, reasons in verdict.items() for words in reasons]
    if plant:
        wrong = [words for words in wrong if words.startswith(BUGS[plant])]
    return 2 * KILLS, [f"round {seed}: {words}" for words in wrong]


def _made(place: str, seed: int, plant: str) -> Path:
    root = Path(place) / f"{seed}-{plant or 'good'}"
    root.mkdir()
    return root


def caught(given: tuple[str, int, str]) -> bool:
    """Is the planted bug found within some rounds?"""
    place, seed, plant = given
    return any(once((place, seed + at, plant))[1] for at in range(TRIES))


def run(size: Size) -> Figures:
    figures = Figures()
    planted = [(str(size.scratch), size.seed, plant) for plant in PLANTS]
    figures.caught = dict(zip(PLANTS, together(caught, planted, size.jobs), strict=True))
    rounds = [(str(size.scratch), size.seed + at, "") for at in range(-(-size.points // (2 * KILLS)))]
    for kills, wrong in together(once, rounds, size.jobs):
        figures.points += kills
        figures.found += wrong
    figures.detail = {"rounds": len(rounds), "files": len(rounds) * FILES}
    return figures


MEANS = Means("kill", "kill", "kills", 50, 2_000, lambda: None, run)
