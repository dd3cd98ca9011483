"""What can be done to a spool, once each: links, pipes, devices, swaps, names, permissions, a spool that goes away."""

import contextlib
import ctypes
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.yard import Yard

EXCHANGE = 2  # RENAME_EXCHANGE
HERE = -100  # AT_FDCWD
LIBC = ctypes.CDLL(None)
GIANT = 200 * 1024**3


def links(yard: Yard) -> None:
    secret = yard.secret()
    (yard.place.root / "elsewhere").mkdir(exist_ok=True)
    (yard.place.root / "elsewhere" / "x.json").write_bytes(secret.read_bytes())
    targets = {"a": secret, "b": "/nonexistent", "c": "l-c.json", "d": yard.place.root / "elsewhere", "e": "/dev/zero"}
    for name, target in targets.items():
        yard.leave(yard.spool / f"l-{name}.json").symlink_to(target)
    yard.leave(yard.spool / "l-till").symlink_to(yard.place.root / "elsewhere")


def pipes_and_devices(yard: Yard) -> None:
    os.mkfifo(yard.leave(yard.spool / "p-pipe.json"))
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(yard.spool):  # such a name has 107 bytes at most
        listener.bind("p-socket.json")
    yard.leave(yard.spool / "p-socket.json")
    if os.geteuid() == 0:
        for name, kind, number in (("zero", stat.S_IFCHR, (1, 5)), ("full", stat.S_IFCHR, (1, 7))):
            os.mknod(yard.leave(yard.spool / f"p-{name}.json"), kind | 0o666, os.makedev(*number))
    deep = yard.leave(yard.spool / "p-directory.json") / "below" / "deeper.json"
    deep.parent.mkdir(parents=True)
    deep.write_bytes(yard.secret().read_bytes())


def not_yet(yard: Yard) -> None:
    for name in (".hidden.json", "x.json.part", "x.JSON", "x.txt", "json", ".json"):
        yard.leave(yard.spool / name).write_bytes(yard.secret().read_bytes())


NAMES = (
    "-rf.json",
    "new\nline.json",
    "\x1b[2J\x1b[31m.json",
    os.fsdecode(b"\xff\xfe\x80.json"),
    "é.json",
    "e\u0301.json",
    "É.json",
    "x" * 250 + ".json",
    "レジ" * 41 + ".json",
    " .json",
    "a b\t.json",
    "%s%n$(reboot)`.json",
    "C:\\con.json",
    "\u202enosj.json",
    ".taken-77-of-a-crash.json",
    ".taken-0-.json",
    "till \x07/\x1b.json",
    os.fsdecode(b"till-\xff/\xfe.json"),
)


def names(yard: Yard) -> None:
    for name in NAMES:
        yard.sell(name=name)


def times(yard: Yard) -> None:
    for when in (0, -86400, 2**31, 2**33, time.time() + 10**8):
        for path in yard.sell():
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, (when, when))


def swapped_for_a_link(yard: Yard) -> None:
    """Between the look and the read, a link stands there: again and again, until the file is taken."""
    secret = yard.secret()
    link = yard.spool / ".link"
    for number in range(25):
        shown = yard.spool / f"swap-{number}.json"
        (visible,) = yard.sell(name=shown.name, where=yard.place.root / "aside")
        link.symlink_to(secret)
        visible.rename(shown)
        over = time.monotonic() + 0.25
        while time.monotonic() < over and _exchange(shown, link):  # the file, the link, the file …
            continue
        for left in (link, shown, *yard.spool.glob(".taken-*")):
            if left.is_symlink():
                left.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            link.rename(shown)


def swapped_for_another(yard: Yard) -> None:
    """Two good files change places all the time: neither may be lost, nor taken twice."""
    other = yard.spool / ".other"
    for number in range(30):
        shown = yard.spool / f"pair-{number}.json"
        (first,) = yard.sell(name=f"pair-{number}.json", where=yard.place.root / "aside")
        first.rename(yard.spool / ".first")
        (second,) = yard.sell(name=f"pair-{number}-b.json", where=yard.place.root / "aside")
        second.rename(other)
        (yard.spool / ".first").rename(shown)
        over = time.monotonic() + 0.15
        while time.monotonic() < over and _exchange(shown, other):
            continue
        with contextlib.suppress(FileNotFoundError):
            other.rename(yard.spool / f"pair-{number}-b.json")


def written_in_place(yard: Yard) -> None:
    """Half now, half later; and one that is written over while it is taken."""
    drop = yard.paper()
    yard.drops.append(drop)
    path = yard.spool / drop.path
    path.parent.mkdir(exist_ok=True)
    size = len(drop.body)
    with path.open("wb", buffering=0) as out:
        for part in range(4):
            out.write(drop.body[size * part // 4 : size * (part + 1) // 4])
            time.sleep(0.5)


def new_directories(yard: Yard) -> None:
    """A directory for each till, made at the same moment as its first file."""
    for till in range(40):
        for number in range(5):
            yard.sell(name=f"new-till-{till}/{number}.json")


def permissions(yard: Yard) -> None:
    """What may not be read stays, and nothing else waits for it; as soon as it may, it goes."""
    (closed,) = yard.sell(name="closed.json", where=yard.place.root / "aside")
    closed.chmod(0)
    closed = closed.rename(yard.spool / "closed.json")
    directory = yard.spool / "closed-till"
    directory.mkdir()
    yard.sell(name="closed-till/x.json")
    directory.chmod(0)
    hidden = yard.drops[-1]
    waiting = [drop for drop in yard.drops if drop.path in {"closed.json", "closed-till/x.json"}]
    yard.sell(3)
    others = [drop for drop in yard.drops if drop not in waiting]
    if not yard.until(lambda: yard.taken(others)):
        yard.found.append("permissions: a file that can't be read keeps others waiting")
    time.sleep(2.5)  # it had its second chance
    if not closed.exists() or (yard.spool / "rejected" / "closed.json").exists():
        yard.found.append("permissions: a file that can't be read was not left where it is")
    directory.chmod(0o700)
    with contextlib.suppress(FileNotFoundError):
        closed.chmod(0o600)
    assert hidden in waiting


def moved_away(yard: Yard) -> None:
    """The whole spool is moved away and made anew, with files in both."""
    away = yard.spool.with_name("away")
    yard.spool.rename(away)
    late = yard.sell(2, where=away)
    time.sleep(0.3)
    yard.spool.mkdir()
    yard.sell(3)
    yard.until(lambda: yard.taken(yard.drops[-3:]))
    for path, drop in zip(late, yard.drops[-5:-3], strict=True):
        target = yard.spool / drop.path
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    for path in (*yard.junk, away / "rejected"):  # what lay about in the old one is cleared away with it
        old = away / path.name
        if path.parent in {yard.spool, away} and os.path.lexists(old):
            old.rename(yard.spool / path.name)


def rejected_elsewhere(yard: Yard) -> None:
    """Where `rejected` is a link, nothing is written behind it; the file waits until it is a directory again."""
    rejected, aside = yard.spool / "rejected", yard.spool / ".rejected"
    outside = yard.place.root / "outside"
    outside.mkdir()
    if rejected.exists():
        rejected.rename(aside)
    rejected.symlink_to(outside)
    bad = yard.spoil("bad.json")
    yard.sell(3)
    yard.settles("rejected is a link")
    time.sleep(2.5)
    if list(outside.rglob("*")):
        yard.found.append("rejected is a link: something was written behind it")
    if not bad.exists():
        yard.found.append("rejected is a link: the file is gone")
    rejected.unlink()
    rejected.write_text("a file")
    yard.sell(2)
    yard.settles("rejected is a file")
    rejected.unlink()
    if aside.exists():
        aside.rename(rejected)
    if not yard.until(lambda: not bad.exists(), 12):
        yard.found.append("rejected is a directory again, and the file still waits")


def a_giant(yard: Yard) -> None:
    """A file far over the limit, mostly hole: reading it takes minutes, which nobody else may have to wait."""
    giant = yard.leave(yard.spool / "giant.json")
    with giant.open("wb") as out:
        out.truncate(GIANT)
    os.utime(giant, (1, 1))  # the oldest, so its turn is first
    time.sleep(3)  # it stands still now
    yard.sell(5)
    yard.settles("a giant file")


def a_storm_of_events(yard: Yard) -> None:
    """Thousands of events that mean nothing, while sales come."""
    over = threading.Event()

    def storm() -> None:
        path = yard.spool / ".storm"
        while not over.is_set():
            path.touch()
            path.rename(yard.spool / ".storm-2")
            (yard.spool / ".storm-2").unlink()

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        yard.sell(20)
        yard.settles("a storm of events")
    finally:
        over.set()
        thread.join()


def _exchange(one: Path, other: Path) -> bool:
    names = (os.fsencode(one), os.fsencode(other))
    return bool(LIBC.renameat2(HERE, names[0], HERE, names[1], EXCHANGE) == 0)


TRICKS: dict[str, Callable[[Yard], None]] = {
    trick.__name__.replace("_", " "): trick
    for trick in (
        links,
        pipes_and_devices,
        not_yet,
        names,
        times,
        swapped_for_a_link,
        swapped_for_another,
        written_in_place,
        new_directories,
        permissions,
        rejected_elsewhere,
        a_storm_of_events,
        moved_away,
        a_giant,
    )
}
