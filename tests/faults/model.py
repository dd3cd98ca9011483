"""
The Hypothesis state machines, for long: redemptions in made-up time, the same on a disk that refuses, sales for real.

Most examples are the redemption machine's, which live in made-up time: jumping clocks, reboots, power cuts between any
two steps, a person who decides. After each step its oracles are asked. One seed gives the same examples again; what
Hypothesis found is in its own words, with the steps.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.faults.means import Figures, Means, Size
from tests.faults.together import together

HOUSE = Path(__file__).resolve().parents[2]
CHUNK = 250  # examples in one child
# machine → (file, the test in it, the variable that says how many examples, its share of all of them)
MACHINES = {
    "redemptions": ("test_redemption_model.py", "TestRedemptions", "MACHINE_EXAMPLES", 0.69),
    "a disk that refuses": ("test_disk_model.py", "TestOnAFullDisk", "DISK_EXAMPLES", 0.3),
    "sales": ("test_model.py", "TestModel", "MODEL_EXAMPLES", 0.01),
}
PLANTS = {
    "never_looks": "test_redemption_model.py::test_the_machine_finds[never_looks]",
    "forgets_attempts": "test_redemption_model.py::test_the_machine_finds[forgets_attempts]",
    "drops_the_flag": "test_redemption_model.py::test_the_machine_finds[drops_the_flag]",
    "believes_its_wall_clock": "test_redemption_model.py::test_the_machine_finds[believes_its_wall_clock]",
    "forgets_on_a_full_disk": "test_disk_model.py::test_the_machine_finds_what_is_forgotten_on_a_full_disk",
}
PASSING = re.compile(r"(\d+) passing, (\d+) failing")


def pytest(where: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{where}", *more]
    return subprocess.run(command, cwd=HOUSE, env=os.environ | environment, capture_output=True, text=True, check=False)


def examples(given: tuple[str, int, int]) -> tuple[str, int, list[str]]:
    """So many examples of one machine, from this seed: how many were lived through, and what was found."""
    machine, count, seed = given
    file, test, variable, _ = MACHINES[machine]
    how = (f"--hypothesis-seed={seed}", "--hypothesis-show-statistics")
    done = pytest(f"{file}::{test}", *how, **{variable: str(count)})
    lived = sum(int(passing) for passing, _ in PASSING.findall(done.stdout))
    if done.returncode == 0:
        return machine, lived, []
    said = [line for line in done.stdout.splitlines() if line.startswith(("E  ", "FAILED"))]
    return machine, lived, [f"{machine}, seed {seed}, {count} examples: " + "\n".join(said[:40])]


def caught(plant: str) -> bool:
    done = pytest(PLANTS[plant])
    return done.returncode == 0 and "1 passed" in done.stdout


def run(size: Size) -> Figures:
    figures = Figures()
    figures.caught = dict(zip(PLANTS, together(caught, PLANTS, size.jobs), strict=True))
    given, seed = [], size.seed
    for machine, (_, _, _, share) in MACHINES.items():
        wanted = max(1, round(size.points * share))
        for at in range(0, wanted, CHUNK):
            given.append((machine, min(CHUNK, wanted - at), seed))
            seed += 1
    for machine, lived, found in together(examples, given, size.jobs):
        figures.points += lived
        figures.detail[machine] = int(figures.detail.get(machine, 0)) + lived
        figures.found += found
    return figures


MEANS = Means("model", "model", "examples", 1_500, 25_000, lambda: None, run)
