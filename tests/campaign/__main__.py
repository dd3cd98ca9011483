"""
The campaign: mixed files, both real programs killed again and again, a sandbox that fails a third of requests.

    python -m tests.campaign [--seed N] [--files 1000] [--kills 10] [--share 0.33] [--plant BUG] [--slice] [--keep]

One seed gives the same files, the same moments and the same dice at the sandbox. The faults stay on until everything
is settled; then a judge that shares no code with the programs looks at what is in rejected/, in both books and at the
sandbox. With `--plant` a bug is planted in one program (tests/planted.py), and the campaign has to find it.
`--slice` is a short campaign that finds nothing, and another one that finds a planted bug.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.campaign.drops import make_drops
from tests.campaign.events import drained, plan, play
from tests.campaign.figures import figures, row, verdict
from tests.campaign.judge import Verdict, judge
from tests.campaign.programs import Place, Sandbox
from tests.planted import BUGS

ENOUGH = 500  # requests after which every way to fail has come up
CALM_S = 20.0  # what is left when the time is up has so long to drain with the faults off: a hung line is a finding


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description="See tests/campaign/__main__.py.")
    parser.add_argument("--seed", type=int, help="the same files, moments and dice again")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10, help="of each program")
    parser.add_argument("--share", type=float, default=0.33, help="of requests that go wrong")
    parser.add_argument("--timeout", type=float, default=0.5, help="of one request, seconds")
    parser.add_argument("--seconds", type=float, help="over which files come and programs are killed")
    parser.add_argument("--plant", choices=[*BUGS, "all"], metavar="BUG", help=f"has to be found: {', '.join(BUGS)}")
    parser.add_argument("--hurry", action="store_true", help="wait a tenth as long after a failure")
    parser.add_argument("--slice", action="store_true", help="short: 100 files, 2 kills; then once more with a bug")
    parser.add_argument("--keep", action="store_true", help="leave the directory for a look")
    chosen = parser.parse_args()
    chosen.seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    if chosen.slice:
        chosen.files, chosen.kills, chosen.hurry = 100, 2, True
    chosen.seconds = chosen.seconds or max(5.0, 0.1 * chosen.files)
    chosen.patience = 4 * chosen.seconds
    return chosen


def campaign(chosen: argparse.Namespace, root: Path, plant: str) -> Verdict:
    """One campaign from the first file to the verdict."""
    began = time.monotonic()
    dice = random.Random(chosen.seed)
    drops = make_drops(dice, chosen.files, chosen.seconds * 0.9)
    actions = plan(dice, drops, chosen.kills, chosen.seconds)
    place, sandbox = Place(root, ",".join(filter(None, (plant, "hurry" if chosen.hurry else "")))), Sandbox(root)
    subprocess.run(place.command("journal", "init"), env=place.env, check=True, capture_output=True)
    run = ("run", "--url", sandbox.url, "--rate", "0", "--timeout", str(chosen.timeout))
    programs = {"journal": place.program("journal", "ingest"), "forwarder": place.program("forwarder", *run)}
    try:
        modes = sandbox.fail(chosen.seed, chosen.share, 4 * chosen.timeout)
        for program in programs.values():
            program.start()
        play(actions, place, programs, sandbox)
        played = time.monotonic() - began
        settled = drained(place, programs, began + chosen.patience)
        under_fire = time.monotonic() - began
        if not settled:
            sandbox.desk("DELETE", "/faults")
            drained(place, programs, time.monotonic() + CALM_S)
        for program in programs.values():
            program.stop()
        state = sandbox.desk("GET", "/state")
    finally:
        for process in [program.process for program in programs.values()] + [sandbox.process]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
    took = {"events": played, "under fire": under_fire, "in all": time.monotonic() - began}
    figures(drops, {name: program.kills for name, program in programs.items()}, sandbox.cuts, state, took)
    hit = {entry["fault"] for entry in state["journal"]}
    logs = {name: program.log.read_text("utf-8", "replace") for name, program in programs.items()}
    return judge(place, drops, state) | {
        "settled under fire": [] if settled else [f"not everything was after {under_fire:.0f} s"],
        "programs went on": [words for program in programs.values() for words in program.complaints]
        + [f"{name} printed a traceback" for name, log in logs.items() if "Traceback" in log],
        "every fault happened": [mode for mode in modes if mode not in hit] if len(state["journal"]) > ENOUGH else [],
    }


def attempt(chosen: argparse.Namespace, plant: str = "") -> bool:
    """A campaign in a directory of its own. Is it as it should be: nothing found, or the planted bug?"""
    root = Path(tempfile.mkdtemp(prefix="campaign-"))
    print(f"seed {chosen.seed}, planted: {plant or 'nothing'}", flush=True)
    try:
        found = campaign(chosen, root, plant)
    finally:
        if chosen.keep:
            print(f"left in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    verdict(found)
    if plant:
        good = bool(found[BUGS[plant]])
        row("verdict", f"{plant} was {'found' if good else 'NOT FOUND'} by: {BUGS[plant]}")
    else:
        good = not any(found.values())
        row("verdict", "nothing lost, nothing twice, nothing changed" if good else "WRONG")
    again = f"--files {chosen.files} --kills {chosen.kills}{' --hurry' if chosen.hurry else ''}"
    row("seed", f"{chosen.seed} ({again})\n")
    return good


def main() -> int:
    chosen = options()
    plants = list(BUGS) if chosen.plant == "all" else [chosen.plant or ""]
    if chosen.slice and not chosen.plant:
        plants = ["", "blind"]
    return 0 if all([attempt(chosen, plant) for plant in plants]) else 1  # noqa: C419 - all of them, whatever the first


if __name__ == "__main__":
    sys.exit(main())
