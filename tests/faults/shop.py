"""A shop to break: its directory, what its tills drop, and copies of it that cost next to nothing."""

import json
import os
import random
import shutil
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from forwarder.sandbox.customers import WEI
from journal import ingest, log
from journal.spool import Contents, File
from tests.campaign.drops import LIMIT, TILLS, Drop, Tills
from tests.faults.judge import Near

ZONE = "Australia/Melbourne"
KINDS = {"sale": 60, "repeat": 14, "conflict": 8, "conflict again": 2, "broken": 16}
SPACE = Path("/dev/shm")  # memory, where there is such a place: syncs cost nothing there


def fast(scratch: Path) -> Path:
    """Where files may be made and thrown away by the million."""
    return SPACE if SPACE.is_dir() and os.access(SPACE, os.W_OK) else scratch


def found(root: Path, plant: str = "") -> Near:
    """A new shop: an empty spool, a new journal, a token."""
    place = Near(root, plant)
    prepare(place)
    log.create(place.journal, "journal", {"journal": str(uuid.uuid4())} | log.boot_facts())
    return place


def prepare(place: Near) -> None:
    """The directories that an installation has."""
    for till in TILLS:
        (place.spool / till).mkdir(parents=True, exist_ok=True)
        (place.spool / "rejected" / till).mkdir(parents=True, exist_ok=True)
    place.journal.parent.mkdir(exist_ok=True)
    (place.root / "token").write_text("sandbox\n")


def written(
    seed: int, count: int, redemptions: int = 0, now: datetime | None = None, settled: int | None = None
) -> list[Drop]:
    """
    Files that are whole, as a till that renames writes them, a second apart: nobody has to wait for them.

    `settled`: so many are taken before a fault can come (all, if not said). What can't be read for once is overtaken,
    so of two that claim one external_id the first must have been taken by then.
    """
    sure = count if settled is None else settled - redemptions  # these may come to stand among them
    tills = Tills(random.Random(seed))
    drops: list[Drop] = []
    while len(drops) < count:
        drop = tills.drop(tills.dice.choices(list(KINDS), list(KINDS.values()))[0], 2.0 * min(len(drops), sure))
        if _whole(drop):
            drops.append(Drop(float(len(drops)), drop.what, drop.path, drop.body, drop.external_id))
        elif drop.what == "broken":
            tills.broken.remove(drop.body)
    said = (now or log.utc_now()).astimezone(ZoneInfo(ZONE)).strftime("%Y-%m-%d %H:%M:%S")
    for number in range(redemptions):
        name = f"R-{seed}-{number}"
        body = {"kind": "redemption", "external_id": name, "profile_id": WEI, "issued_at": said, "timezone": ZONE}
        body |= {"amount": 5 + number, "strategies": ["points"]}
        place = tills.dice.randint(0, len(drops))
        drops.insert(place, Drop(0.0, "redemption", f"{name}.json", json.dumps(body).encode(), name))
    return [Drop(float(n), each.what, each.path, each.body, each.external_id) for n, each in enumerate(drops)]


def _whole(drop: Drop) -> bool:
    file = File(drop.path, 0, 0, len(drop.body), 0)
    return len(drop.body) <= LIMIT and ingest.read(Contents(file, drop.body)).whole


def put(place: Near, drops: Sequence[Drop]) -> None:
    """Into the spool, durably and in this order: what a till does is not what is tested."""
    for drop in drops:
        path = place.spool / drop.path
        draft = path.with_name(f".{path.name}.part")
        with draft.open("wb") as file:
            file.write(drop.body)
            file.flush()
            os.fsync(file.fileno())
        stamp(draft, drop)
        draft.rename(path)
        log.sync_directory(path.parent)


def stamp(path: Path, drop: Drop) -> None:
    """The order in which files are taken."""
    os.utime(path, (drop.at + 1e9, drop.at + 1e9))


def copy(before: Path, after: Path) -> None:
    """The same directory elsewhere, times included."""
    shutil.rmtree(after, ignore_errors=True)
    shutil.copytree(before, after)
