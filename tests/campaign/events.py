"""What happens when: files come, programs are killed and started again, the line is cut. All by one seed."""

import contextlib
import random
import time
from pathlib import Path
from typing import Any

from tests.campaign.drops import Drop
from tests.campaign.programs import Place, Program, Sandbox

Action = tuple[float, str, Any]  # when, what, with what


def plan(dice: random.Random, drops: list[Drop], kills: int, seconds: float) -> list[Action]:
    """Everything that happens, by the clock: files come, programs are killed and started again, the line is cut."""
    actions: list[Action] = [(drop.at, "drop", drop) for drop in drops]
    actions += [(drop.at + dice.uniform(0.05, 0.9), "finish", drop) for drop in drops if drop.in_place]
    during = [drop.at + dice.expovariate(1 / 0.01) for drop in drops]  # while it works on what has just come
    spread = [dice.uniform(0.5, seconds) for _ in range(1000)]
    for name, moments in (("journal", during), ("forwarder", spread)):
        dice.shuffle(moments)
        for at in _apart(moments, kills):
            actions += [(at, "kill", name), (at + dice.uniform(0.02, 0.8), "start", name)]
    cuts = max(1, kills // 3)
    actions += [(seconds * (number + dice.random()) / cuts, "cut", dice.uniform(0.5, 2.0)) for number in range(cuts)]
    return sorted(actions, key=lambda action: action[0])


def _apart(moments: list[float], count: int, least: float = 1.2) -> list[float]:
    """The first so many moments of which no two are close together; what is missing comes after the last."""
    kept: list[float] = []
    for moment in moments:
        if len(kept) < count and all(abs(moment - other) >= least for other in kept):
            kept.append(moment)
    while len(kept) < count:
        kept.append(max(kept, default=0.0) + least)
    return kept


def play(actions: list[Action], place: Place, programs: dict[str, Program], sandbox: Sandbox) -> None:
    """Let it all happen, in real time."""
    began = time.monotonic()
    for at, what, thing in actions:
        time.sleep(max(0.0, began + at - time.monotonic()))
        match what:
            case "drop":
                write(place.spool, thing)
            case "finish":
                with contextlib.suppress(FileNotFoundError), (place.spool / thing.path).open("r+b") as file:
                    file.seek(len(thing.body) // 2)
                    file.write(thing.body[len(thing.body) // 2 :])
            case "kill":
                programs[thing].kill()
            case "start":
                programs[thing].start()
            case "cut":
                sandbox.cut(thing)


def write(spool: Path, drop: Drop) -> None:
    """As the contract asks, by rename; or in place, the first half of it."""
    path = spool / drop.path
    path.parent.mkdir(exist_ok=True)
    if drop.in_place:
        path.write_bytes(drop.body[: len(drop.body) // 2])
        return
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(drop.body)
    draft.rename(path)


def waiting_files(spool: Path) -> list[str]:
    """Everything under the spool that is not in rejected/."""
    found = [path.relative_to(spool) for path in spool.rglob("*") if not path.is_dir()]
    return sorted(str(path) for path in found if path.parts[0] != "rejected")


def drained(place: Place, programs: dict[str, Program], until: float) -> bool:
    """Wait until the spool is empty and no document waits."""
    while time.monotonic() < until:
        for program in programs.values():
            program.look()
        if not waiting_files(place.spool) and place.ask("close-check")[1][0]["waiting"] == 0:
            return True
        time.sleep(0.3)
    return False
