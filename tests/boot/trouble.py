"""What befalls a box in a shop, held against the words of docs/operating.md: no line, a full disk, a wrong clock."""

import json
import os
import re
import shutil
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import hands
from hands import (
    ACT,
    BASE,
    DELIVERY,
    JOURNAL,
    SPOOL,
    TILL,
    UNITS,
    arrived,
    asked,
    at_omneo,
    both_up,
    calm,
    check,
    drop,
    everything_is_there_once,
    must,
    run,
    say,
    shown,
    told_by,
    until,
)

HOUR_S, RATE = 3600.0, 60.0
MIB = 1024 * 1024
DISK = Path("/disk")


# -- clocks ---------------------------------------------------------------------------------------------------------


def set_clock(name: str, wall_s: float = 0.0, fast: tuple[float, float] = (0.0, 0.0)) -> None:
    """The hands of one clock: how wrong the wall clock is, and when all of it runs fast (clocks.c)."""
    (ACT / f"clocks.{name}").open("r+b").write(struct.pack("4d", *fast, RATE, wall_s))


def told_clocks(scene: str) -> bool:
    """Both programs, and each command from here on, go by a clock that can be set."""
    if not (lines := told_by("shop")):
        say(f"SKIPPED {scene}: clocks that run as they are told need a C compiler (cc) on the host")
        return False
    for unit in UNITS:
        place = Path(f"/run/systemd/system/{unit}.service.d")
        place.mkdir(exist_ok=True)
        (place / "clocks.conf").write_text(f"[Service]\n{lines}")
    hands.clocks.update({"LD_PRELOAD": str(ACT / "clocks.so"), "CLOCKS": str(ACT / "clocks.shop")})
    calm()
    must("systemctl", "daemon-reload")
    must("systemctl", "restart", *UNITS)
    check("both run by the clock that can be set", both_up())
    return True


def own_clocks() -> None:
    """As before."""
    must("systemctl", "stop", *UNITS)
    for name in ("shop", "omneo"):
        set_clock(name)
    for unit in UNITS:
        shutil.rmtree(f"/run/systemd/system/{unit}.service.d")
    hands.clocks.clear()
    calm()
    must("systemctl", "daemon-reload")
    must("systemctl", "start", *UNITS)
    check("both run by their own clock again", both_up())


# -- what people see ------------------------------------------------------------------------------------------------


def status() -> str:
    return must("omneo-forwarder", "status")


def shows(what: str, told: str, pattern: str) -> None:
    """A line of what people see."""
    check(what, bool(re.search(pattern, told, re.MULTILINE)) or told)


def doctor() -> str:
    """What it found wrong, with its advice."""
    return "\n".join(re.findall(r"^✗ .*\n(?:    .*\n)?", run("omneo-forwarder", "doctor").stdout, re.MULTILINE))


def logged(unit: str) -> list[dict[str, Any]]:
    """What a program has said since the machine was booted."""
    lines = must("journalctl", "-b", "-u", unit, "-o", "cat", "--no-pager", "-q").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def lives() -> dict[str, tuple[str, str]]:
    """Which process each is, and how often it was restarted."""
    return {unit: (shown(unit, "MainPID"), shown(unit, "NRestarts")) for unit in UNITS}


def open_flags() -> list[dict[str, Any]]:
    return [json.loads(line) for line in must("omneo-journal", "flags", "--json").splitlines()]


def entries(book: Path, where: str = "1") -> int:
    return int(must("sqlite3", "-readonly", book, f"SELECT count(*) FROM log WHERE {where}"))


def in_order(what: str, names: list[str]) -> None:
    """All of them, once, in the order in which they were dropped."""
    arrived(names)
    there = [name for name in at_omneo() if name in set(names)]
    check(f"{what}: all are at Omneo, once, in order", there, names)


# -- scenes ---------------------------------------------------------------------------------------------------------


def cable() -> None:
    """The cable is out for an hour, which takes a minute; every clock of the shop and Omneo's agree on that."""
    if not told_clocks("cable"):
        return
    first = drop(3)
    in_order("before", first)
    before, flags, mark = lives(), open_flags(), {unit: len(logged(unit)) for unit in UNITS}
    known = entries(DELIVERY)
    must("ip", "link", "set", "lo", "down")
    begun = time.monotonic()
    for name in ("shop", "omneo"):
        set_clock(name, fast=(begun, begun + HOUR_S / RATE))
    names = []
    while (spent := time.monotonic() - begun) < HOUR_S / RATE - 3:
        names += drop(1)
        time.sleep(max(0.0, 1 - (time.monotonic() - begun - spent)))
    check("all are in the journal", bool(until(lambda: not list(TILL.glob("*.json")))))
    seen, found = status(), doctor()
    down = re.search(r"^The line to Omneo is down since .* \((\d+) min.*\): no connection\.$", seen, re.MULTILINE)
    check("status: the line is down, since when and why", bool(down), True)
    check("an hour has gone", down is not None and int(down[1]) >= 55)
    check(
        "status: how many wait",
        re.findall(r"^([\d,]+) waiting, the oldest for \d+ min", seen, re.MULTILINE),
        [str(len(names))],
    )
    check("status: nothing hangs", re.findall(r"^  ! .*", seen, re.MULTILINE), [])
    shows("doctor says it too", found, "no connection")
    until(lambda: time.monotonic() > begun + HOUR_S / RATE)
    said = {unit: logged(unit)[mark[unit] :] for unit in UNITS}
    events = [line["event"] for line in said["omneo-forwarder"]]
    say(f"   in the hour: {len(events)} lines of the forwarder {events}, {len(said['omneo-journal'])} of ingest")
    check("one line of log for an hour without a line", events, ["line_down"])
    swept = {line["event"] for line in said["omneo-journal"]}
    check(
        "ingest says what it takes, and no more", (swept, len(said["omneo-journal"]) <= len(names)), ({"swept"}, True)
    )
    kinds = must("sqlite3", "-readonly", DELIVERY, f"SELECT kind, count(*) FROM log WHERE seq > {known} GROUP BY kind")
    count = dict(line.split("|") for line in kinds.splitlines())
    say(f"   entries: {count}")
    check("no try is an entry: the line's turn is one", count.pop("line", None), "1")
    check("else only a canary every five minutes", ([*count], int(count.get("canary", 0)) <= 12), (["canary"], True))
    must("ip", "link", "set", "lo", "up")
    put_back = time.monotonic()
    in_order("after an hour", names)
    say(f"   {len(names)} were there {time.monotonic() - put_back:.1f} s after the cable was back")
    check("nothing was restarted", lives(), before)
    check("nothing was flagged", open_flags(), flags)
    check("no clock was set", entries(JOURNAL, "kind = 'clock'"), 0)
    check(
        "status: all is well", until(lambda: "The line to Omneo is up" in status() and "Nothing waits." in status(), 30)
    )
    check("doctor: all is well", doctor(), "")
    own_clocks()
    everything_is_there_once("after an hour without a line")


def free() -> int:
    there = os.statvfs(DISK)
    return there.f_bavail * there.f_frsize


def fill(leave: int) -> Path:
    """Somebody else's file takes all but so many bytes."""
    filler = DISK / "somebody-elses"
    with filler.open("ab") as other, suppress(OSError):
        while (more := free() - leave) > 0:  # others write meanwhile
            os.posix_fallocate(other.fileno(), filler.stat().st_size, min(more, max(more - 65536, 4096)))
    return filler


def move_books(there: bool) -> None:
    """To the small disk, or back."""
    must("systemctl", "stop", *UNITS)
    for book in (JOURNAL, DELIVERY):
        small = DISK / book.parent.name
        if there:
            must("cp", "-a", book.parent, DISK)
            must("mount", "--bind", small, book.parent)
        else:
            must("umount", book.parent)
            must("cp", "-a", f"{small}/.", book.parent)
    calm()
    must("systemctl", "start", *UNITS)
    check("both run", both_up())


def full() -> None:
    """Somebody else fills the disk that the books are on: nearly, then to the last byte, and clears it up."""
    if not os.path.ismount(DISK):
        say("SKIPPED full: a small disk needs mkfs.ext4 and a loop device on the host")
        return
    move_books(there=True)
    until(lambda: DELIVERY.with_name("delivery.db.ballast").exists())
    check("doctor: all is well", doctor(), "")
    (SPOOL / "rejected").mkdir(exist_ok=True)
    must("sh", user="till", given=f"echo nonsense >{TILL}/.bad; mv {TILL}/.bad {TILL}/bad.json")
    flags = until(lambda: [flag for flag in open_flags() if flag["flag"] == "invalid"])
    before, mark = lives(), len(logged(UNITS[0]))
    asked("/_sandbox/faults", {"mode": "refuse"})
    inside = drop(20)
    check("they are in the journal", bool(until(lambda: not list(TILL.glob("*.json")))))

    filler = fill(leave=40 * MIB)
    outside = drop(5)
    stopped = until(lambda: [line for line in logged("omneo-journal")[mark:] if line["event"] == "not_now"])
    check("ingest: not_now, nearly full", [line["reason"].count("nearly full") for line in stopped or []], [1])
    seen, found = status(), doctor()
    check("files stay in the spool", len(list(TILL.glob("*.json"))), len(outside))
    shows("status says so", seen, r"^  ! The disk is nearly full: files stay in the spool\.$")
    shows("and how little there is", seen, r"^\d+ MB free on disk\.$")
    check(
        "doctor: disk space, and what to do",
        bool(re.search("^✗ disk space: .*\n    Free some space", found, re.MULTILINE)),
    )
    resolved = run("omneo-journal", "resolve", flags[0]["id"], "--by", "J. Smith", "--note", "Entered again")
    check("a person's word is taken", (resolved.returncode, resolved.stderr[-300:]), (0, ""))

    fill(leave=0)
    say(f"   {free()} bytes free")
    must("curl", "-s", "-X", "DELETE", f"{BASE}/_sandbox/faults")
    in_order("with a disk that is full to the last byte", inside)
    check("and in the book", until(lambda: not must("omneo-journal", "list", "--state", "waiting")), True)
    check("for that it gave up its ballast", DELIVERY.with_name("delivery.db.ballast").exists(), False)
    check("files still stay", len(list(TILL.glob("*.json"))), len(outside))
    filler.unlink()
    arrived(outside)
    check("with space, those in the spool come too", sorted(set(at_omneo()) & set(outside)), sorted(outside))
    events = [line["event"] for line in logged("omneo-journal")[mark:]]
    check(
        "ingest says it once, and that it goes on",
        [event for event in events if event in {"not_now", "going_on"}],
        ["not_now", "going_on"],
    )
    check("nothing was restarted", lives(), before)
    check("status: all is well", re.findall("^  ! .*", status(), re.MULTILINE), [])
    check("doctor: all is well", doctor(), "")
    for path in (SPOOL / "rejected").rglob("bad.json*"):
        path.unlink()
    everything_is_there_once("after a full disk")
    move_books(there=False)


def clock() -> None:
    """The battery is empty: 1970, while both run, at a start, and back. Omneo's clock is right all the while."""
    if not told_clocks("clock"):
        return
    flags, jumps, mark = open_flags(), entries(JOURNAL, "kind = 'clock'"), sum(len(logged(unit)) for unit in UNITS)
    names = drop(3)
    in_order("before", names)
    before = lives()
    set_clock("shop", 10 - time.time())
    names += drop(3)
    in_order("in 1970", names)
    check("the jump is an entry", until(lambda: entries(JOURNAL, "kind = 'clock'") - jumps), 1)
    facts = json.loads(
        must("sqlite3", "-readonly", JOURNAL, "SELECT facts FROM log WHERE kind = 'clock' ORDER BY seq DESC LIMIT 1")
    )
    check("with what the clock would have shown", facts["was"][:4], time.strftime("%Y"))
    check("nothing was restarted", lives(), before)
    seen, found = status(), doctor()
    check(
        "status tells it",
        bool(re.search(r"^  ! This machine's clock was set at 1970.*: it had shown 20", seen, re.MULTILINE)),
    )
    check(
        "doctor tells it",
        bool(re.search(r"^✗ clock: this machine's clock is \d+ s behind Omneo's\n    Set", found, re.MULTILINE)),
    )
    calm()
    must("systemctl", "restart", *UNITS)
    check("both begin in 1970", both_up())
    names += drop(3)
    in_order("begun in 1970", names)
    told = [flag for flag in open_flags() if flag not in flags]
    # Once, and once more after a start.
    check(
        "it is flagged",
        [(flag["flag"], flag["detail"]["whose"]) for flag in told],
        [("clock_skew", "this machine")] * 2,
    )
    now = time.monotonic()
    for name in ("shop", "omneo"):  # no more than one entry a minute, which takes a second
        set_clock(name, 10 - time.time() if name == "shop" else 0.0, (now, now + 1.1))
    time.sleep(1.2)
    set_clock("shop", 0.0, (now, now + 1.1))
    names += drop(3)
    in_order("and back", names)
    check("the way back is an entry too", until(lambda: entries(JOURNAL, "kind = 'clock'") - jumps == 2), True)
    listed = [json.loads(line)["external_id"] for line in must("omneo-journal", "list", "--json").splitlines()]
    check("the journal has them in order", listed[-len(names) :], names)
    day = json.loads(must("omneo-journal", "report", "--day", "1970-01-01", "--format", "json"))
    check(
        "in the report it stands on the day that the clock showed",
        (day["documents"], day["states"]["delivered"]),
        (6, 6),
    )
    check("doctor: all is well", doctor(), "")
    shows("status still tells it", status(), "^  ! This machine's clock was set at")
    lines = sum(len(logged(unit)) for unit in UNITS) - mark
    check(f"the log stays short ({lines} lines)", lines < 60, True)
    own_clocks()
    everything_is_there_once("after 1970")
