"""
What is done inside of the machine, by root: `act.py SCENE…`. Each promise is a line, `ok` or `FAILED`; `done` ends it.

Only the standard library and the programs that the package has brought: this is a box in a shop, not a checkout.
"""

import contextlib
import ctypes
import gzip
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import chain
import hands
import trouble
from hands import (
    ACT,
    BASE,
    DELIVERY,
    JOBS,
    JOURNAL,
    SPOOL,
    STORE,
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
    kill,
    must,
    package,
    run,
    say,
    shown,
    stand_in,
    until,
)

# What each unit has to be let do. Everything else that probe.py tries has to be refused.
ALLOWED = {
    "omneo-journal": {
        "write its state",
        "read the boot id",
        "open a local socket",
        "read its own secret",
        "read the journal",
        "write the journal",
        "put a file beside the journal",
        "read the delivery book",
        "look into the spool",
        "write into the spool",
        "write into a till's directory",
    },
    "omneo-forwarder": {
        "write its state",
        "read the boot id",
        "open a local socket",
        "read its own secret",
        "read the journal",
        "read the delivery book",
        "write the delivery book",
        "open an internet socket",
        "open an IPv6 socket",
        "reach the sandbox",
    },
}
# The other copy of what it may read anyway: not asked.
OWN_SECRET = {"omneo-journal": {"read the journal's key"}, "omneo-forwarder": {"read the forwarder's token"}}
# What is about the program in a unit, and not about the room that it runs in.
PROGRAMS_OWN = r"^(Type|NotifyAccess|Watchdog\w+|Restart\w*|ExecStart\w*|TimeoutStartSec|RuntimeDir\w+)=.*\n"
PROBE = "ExecStart=/usr/bin/python3 -B /opt/probe.py"
PTRACE_ATTACH, WALL = 16, 0x40000000  # linux/ptrace.h, linux/wait.h


# -- scenes ---------------------------------------------------------------------------------------------------------


def install() -> None:
    """The first page's way: the package, an address, a token, `init`, `doctor`."""
    must("ip", "link", "set", "lo", "up")
    done = run("apt-get", "install", "--yes", ACT / "first.deb")
    check("apt install", (done.returncode, done.stderr[-500:] if done.returncode else ""), (0, ""))
    must("useradd", "--system", "--shell", "/usr/sbin/nologin", "till")
    for user in UNITS:
        entry = must("getent", "passwd", user).strip().split(":")
        check(f"{user} can't log in", entry[-1], "/usr/sbin/nologin")
        check(f"{user} is in one group", must("id", "-Gn", user).split(), ["omneo"])
    check("both are enabled", must("systemctl", "is-enabled", "omneo.target").strip(), "enabled")
    names = [*UNITS, *(f"omneo-{job}" for job in JOBS)]
    units = [f"{name}.service" for name in names] + [f"omneo-{job}.timer" for job in JOBS] + ["omneo.target"]
    done = run("systemd-analyze", "verify", *units)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "omneo" in line]
    check("systemd-analyze verify says nothing of ours", ours, [])
    check("without a journal both go on trying", {shown(unit, "ActiveState") for unit in UNITS}, {"activating"})
    stand_in()
    settings = Path("/etc/omneo/omneo.env")
    text = settings.read_text().replace("https://api.example.getomneo.com", BASE)
    settings.write_text(text + "OMNEO_RATE=0\nOMNEO_TIMEOUT=2\n")
    (STORE / "omneo-token").write_text("sandbox\n")
    (STORE / "omneo-token").chmod(0o600)
    must("omneo-journal", "init")
    must("omneo-journal", "keygen", "--out", STORE)
    check("the journal belongs to its program", (JOURNAL.owner(), JOURNAL.group()), ("omneo-journal", "omneo"))
    check("both services come up by themselves", both_up())
    must("systemctl", "restart", *UNITS)
    check("and again with the key", both_up())
    done = run("omneo-forwarder", "doctor")
    check("doctor finds nothing wrong", (done.returncode, done.stdout if done.returncode else ""), (0, ""))
    must("install", "-d", "-o", "till", "-g", "omneo", "-m", "2770", TILL)
    drop(3)
    everything_is_there_once("after the installation")
    for unit in UNITS:
        check(f"{unit} has limits", "infinity" not in {shown(unit, name) for name in ("MemoryMax", "TasksMax")})


def people() -> None:
    """What an operator has at the keyboard: completion and manuals."""
    words = {"_OMNEO_JOURNAL_COMPLETE": "bash_complete", "COMP_WORDS": "omneo-journal ini", "COMP_CWORD": "1"}
    check("the tab key knows the commands", must("omneo-journal", **words).split(), ["plain,init"])
    source = ". /usr/share/bash-completion/completions/omneo-forwarder && complete -p omneo-forwarder"
    check("bash is told so", run("bash", "-c", source).returncode, 0)
    for name in UNITS:
        done = run("man", "--warnings", name, MANWIDTH="80")
        check(f"man {name}", (done.returncode, done.stderr, name in done.stdout), (0, "", True))


def prison() -> None:
    """Each unit's own settings around a program that tries what it must not."""
    Path("/tmp/not-for-you").write_text("x")
    Path("/home/someone").mkdir(exist_ok=True)
    shutil.copy(ACT / "probe.py", "/opt/probe.py")
    for unit in UNITS:
        text = Path(f"/usr/lib/systemd/system/{unit}.service").read_text()
        text = re.sub(PROGRAMS_OWN, "", text, flags=re.MULTILINE)
        out = Path(f"/act/{unit}.probe")
        added = "".join(f"{key}\n" for key in ("Type=oneshot", PROBE, f"StandardOutput=file:{out}"))
        Path(f"/run/systemd/system/{unit}-probe.service").write_text(text.replace("[Service]\n", f"[Service]\n{added}"))
        must("systemctl", "daemon-reload")
        done = run("systemctl", "start", f"{unit}-probe")
        found = [line.split("\t") for line in out.read_text().splitlines()]
        Path(f"/run/systemd/system/{unit}-probe.service").unlink()
        check(f"{unit}: the probe ran to its end", (done.returncode, len(found) > 40), (0, True))
        for name, verdict, *why in found:
            wanted = "yes" if name in ALLOWED[unit] else "no"
            if name not in OWN_SECRET[unit]:
                check(f"{unit} {'may' if wanted == 'yes' else 'may not'} {name} {why}", verdict, wanted)


def permissions() -> None:
    """The same doors without any sandbox around: file permissions alone."""
    read = ("sqlite3", "-readonly", JOURNAL, "SELECT count(*) > 0 FROM log")
    check("the forwarder's user reads the journal", run(*read, user="omneo-forwarder").stdout.strip(), "1")
    for what, command in {
        "write the journal": ("sqlite3", JOURNAL, "CREATE TABLE forged (x)"),
        "open it for writing": ("sh", "-c", f"exec 3>>{JOURNAL}"),
        "remove it": ("rm", "-f", JOURNAL),
        "put a file beside it": ("touch", JOURNAL.with_name("journal.db-journal")),
        "replace it": ("mv", DELIVERY, JOURNAL),
    }.items():
        check(f"the forwarder's user can't {what}", run(*command, user="omneo-forwarder").returncode != 0)
    forge = ("sqlite3", DELIVERY, "CREATE TABLE forged (x)")
    check("the journal's user can't write the delivery book", run(*forge, user="omneo-journal").returncode != 0)
    for what, command in {
        "read the journal": ("cat", JOURNAL),
        "read the delivery book": ("cat", DELIVERY),
        "look into the spool": ("ls", SPOOL),
        "look into rejected/": ("ls", SPOOL / "rejected"),
        "read the token": ("cat", STORE / "omneo-token"),
    }.items():
        check(f"a till can't {what}", run(*command, user="till").returncode != 0)


def kills(times: int = 3) -> None:
    """Both programs die again and again while a till drops."""
    before = {unit: int(shown(unit, "NRestarts")) for unit in UNITS}
    for turn in range(times):
        if turn % 4 == 0:
            calm()
        drop(20)
        for unit in UNITS:
            kill(unit)
        drop(20)
        both_up()
    for unit in UNITS:
        # Oftener, if it met what a kill of the other had left half written: that is for later, so it ends with 75.
        check(f"{unit} was restarted each time", int(shown(unit, "NRestarts")) - before[unit] >= times)
    everything_is_there_once(f"after {times} kills of each")


def short_watchdog(seconds: int) -> None:
    for unit in UNITS:
        place = Path(f"/run/systemd/system/{unit}.service.d")
        place.mkdir(parents=True, exist_ok=True)
        (place / "short.conf").write_text(f"[Service]\nWatchdogSec={seconds}s\n")
    # One request may take as long as --timeout, so this has to be shorter.
    settings = Path("/etc/omneo/omneo.env")
    settings.write_text(settings.read_text().replace("OMNEO_TIMEOUT=2", "OMNEO_TIMEOUT=0.9"))
    must("systemctl", "daemon-reload")
    must("systemctl", "restart", *UNITS)
    calm()
    both_up()


def stall() -> None:
    """The thread with the loop stands still while the others live."""
    short_watchdog(4)
    for unit in UNITS:
        its_loop_stands_still(unit)
    check("both come back", both_up())
    everything_is_there_once("after the stall")


def watchdog(seconds: int = 5) -> None:
    """With a short watchdog: an outage is no stall, a program or a loop that stands still is."""
    short_watchdog(seconds)
    so_far = {unit: fired(unit) for unit in UNITS}
    asked("/_sandbox/faults", {"mode": "refuse"})
    drop(5)
    before = {unit: int(shown(unit, "NRestarts")) for unit in UNITS}
    time.sleep(10 * seconds)
    for unit in UNITS:
        check(f"{unit} is not restarted in an outage", int(shown(unit, "NRestarts")), before[unit])
    for unit in UNITS:
        calm()
        kill(unit, "STOP")
        check(f"{unit} stands still and is restarted", until(lambda: again(unit, before[unit]), 30))  # noqa: B023
        both_up()
        its_loop_stands_still(unit)
        check("both come back", both_up())
    must("curl", "-s", "-X", "DELETE", f"{BASE}/_sandbox/faults")
    everything_is_there_once("after the watchdog")
    for unit in UNITS:
        check(f"{unit}: it was the watchdog, and only where it should", fired(unit) - so_far[unit], 2)
        shutil.rmtree(f"/run/systemd/system/{unit}.service.d")
    must("systemctl", "daemon-reload")
    must("systemctl", "restart", *UNITS)


def fired(unit: str) -> int:
    return must("journalctl", "-b", "-u", unit, "--no-pager", "-q").count("Watchdog timeout")


def again(unit: str, before: int) -> bool:
    return int(shown(unit, "NRestarts")) > before


def its_loop_stands_still(unit: str) -> None:
    calm()
    main, before = int(shown(unit, "MainPID")), int(shown(unit, "NRestarts"))
    ctypes.CDLL(None).ptrace(PTRACE_ATTACH, main, None, None)  # stops this one thread
    os.waitpid(main, WALL)
    states = sorted({state(thread) for thread in Path(f"/proc/{main}/task").iterdir()})
    check(f"{unit}: its loop stands, its other threads live", states, ["S", "t"])

    def restarted() -> bool:
        with contextlib.suppress(ChildProcessError):  # whoever traces a program hears first that it was killed
            os.waitpid(main, WALL | os.WNOHANG)
        return again(unit, before)

    check(f"{unit}'s loop stands still and it is restarted", until(restarted, 30))


def state(thread: Path) -> str:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


def nightly() -> None:
    """Each job of the night, twice on one day, and what it leaves."""
    kept = Path("/var/lib/omneo-journal")
    for job in JOBS:
        check(f"the timer of {job} waits", shown(f"omneo-{job}.timer", "ActiveState"), "active")
        for _ in range(2):
            done = run("systemctl", "start", f"omneo-{job}")
            check(f"{job} succeeds", done.returncode, 0)
    today = time.strftime("%F")
    paper = kept / f"checkpoints/{today}.txt"
    check("the checkpoint is signed", "— omneo-journal/" in paper.read_text())
    check(
        "the report is a page", (kept / "reports").glob("*.html").__next__().read_text().startswith("<!doctype html>")
    )
    backup = Path(f"/var/backups/omneo/{today}")
    names = sorted(path.name for path in backup.iterdir() if path.suffix == ".db")
    check("the backup has both books", names, ["delivery.db", "journal.db"])
    done = run("omneo-journal", "verify", "--db", backup / "journal.db", "--delivery", backup / "delivery.db")
    check("the backup stands", done.returncode, 0)
    check("nothing was archived unasked", (kept / "packs").exists(), False)
    with Path("/etc/omneo/omneo.env").open("a") as file:
        file.write("OMNEO_ARCHIVE_AFTER_DAYS=-1\n")
    must("systemctl", "start", "omneo-archive")
    packs = list((kept / "packs").glob("*.zip"))
    check("asked, old bodies go into a pack", len(packs), 1)
    check("what the journal's programs wrote is theirs", {path.owner() for path in packs}, {"omneo-journal"})


def upgrade() -> None:
    """A newer package over a running pair: settings stay, both programs are new, nothing is lost."""
    before = {unit: shown(unit, "MainPID") for unit in UNITS}
    settings = Path("/etc/omneo/omneo.env").read_text()
    drop(10)
    package("second.deb")
    check("both run after the upgrade", both_up())
    check("they are new", [shown(unit, "MainPID") != before[unit] for unit in UNITS], [True, True])
    check("the settings stay", Path("/etc/omneo/omneo.env").read_text() == settings)
    drop(10)
    everything_is_there_once("after the upgrade")
    must("systemctl", "disable", "--now", "omneo.target")
    package("first.deb")
    enabled = run("systemctl", "is-enabled", "omneo.target").stdout.strip()
    check(
        "an operator's `disable` outlives a package",
        (enabled, shown("omneo-journal", "ActiveState")),
        ("disabled", "inactive"),
    )
    must("systemctl", "enable", "--now", "omneo.target")
    check("and `enable` brings both back", both_up())


def purge() -> None:
    """A purge while sales wait: the books stay, and what waited arrives after the next installation."""
    asked("/_sandbox/faults", {"mode": "refuse"})
    names = drop(7)
    check("they are in the journal", bool(until(lambda: not list(TILL.glob("*.json")))))
    must("systemctl", "stop", *UNITS)
    late = drop(2)
    program = Path("/tmp/program")
    shutil.copytree("/opt/omneo-journal", program, symlinks=True)  # the stand-in needs it while there is no package
    unit = Path("/run/systemd/system/sandbox.service")
    books = {path: path.read_bytes() for path in (JOURNAL, DELIVERY)}
    done = run("dpkg", "--purge", "omneo-journal")
    check("dpkg --purge", done.returncode, 0)
    for path, was in books.items():
        check(f"the purge leaves {path}", path.exists() and path.read_bytes() == was)
        check(f"it says so of {path.parent}", str(path.parent) in done.stderr)
    check("it leaves the spool", len(list(TILL.glob("*.json"))), len(late))
    left = [
        path
        for path in (
            "/opt/omneo-journal",
            "/etc/omneo",
            "/usr/bin/omneo-journal",
            STORE / "omneo-token",
            STORE / "omneo-journal-key",
        )
        if os.path.lexists(path)
    ]
    check("programs, settings and secrets are gone", left, [])
    check("no unit of ours is left", "omneo" in must("systemctl", "list-unit-files", "--no-legend"), False)
    check("the sandbox still runs", unit.exists() and shown("sandbox", "ActiveState"), "active")
    package()
    settings = Path("/etc/omneo/omneo.env")
    settings.write_text(settings.read_text().replace("https://api.example.getomneo.com", BASE) + "OMNEO_RATE=0\n")
    (STORE / "omneo-token").write_text("sandbox\n")
    must("systemctl", "restart", "omneo.target")
    must("curl", "-s", "-X", "DELETE", f"{BASE}/_sandbox/faults")
    check("both come up over the books that were there", both_up())
    check("what waited arrives", arrived([*names, *late]))
    everything_is_there_once("after a purge and a new installation")


def old_books() -> None:
    """Books that an earlier version wrote, with two sales that Omneo does not have yet, under today's programs."""
    must("systemctl", "stop", *UNITS)
    stand_in(up=False)
    stand_in()
    key = STORE / "omneo-journal-key"  # of the journal that goes aside
    if key.exists():  # a purge may have taken it
        key.rename(STORE / "aside")
    for path in (JOURNAL, DELIVERY):
        path.rename(path.with_suffix(".aside"))
        path.write_bytes(gzip.decompress((ACT / f"old.{path.name}.gz").read_bytes()))
        path.chmod(0o640)
        shutil.chown(path, path.parent.owner(), "omneo")
    calm()
    must("systemctl", "start", "omneo.target")
    check("both run on books of an earlier version", both_up())
    check("what waited in them arrives", arrived(["S-6", "S-7"]))
    check("and nothing that was delivered", sorted(at_omneo()), ["S-6", "S-7"])
    check("verify finds nothing in them", run("omneo-journal", "verify").returncode, 0)
    for path in (JOURNAL, DELIVERY):
        copy = path.with_name(f"{path.name}.format-1")
        check(f"{copy.name} is kept", (copy.exists(), copy.owner()), (True, path.owner()))
    must("systemctl", "stop", *UNITS)
    for path in (JOURNAL, DELIVERY):
        path.with_suffix(".aside").rename(path)
    if (STORE / "aside").exists():
        (STORE / "aside").rename(key)
    must("systemctl", "start", "omneo.target")
    check("both run on their own again", both_up())


def burst() -> None:
    """Sales come as fast as they can until somebody cuts the power."""
    drop(300)
    say("CUT")
    while True:
        time.sleep(1)


def after_the_cut() -> None:
    """The next boot: both come up by themselves, without a network but the stand-in, and go on."""
    must("ip", "link", "set", "lo", "up")
    check("both come up by themselves", both_up())
    stand_in()  # it has forgotten what it had
    hands.dropped = 300 + int((ACT / "dropped").read_text())
    until(lambda: not list(TILL.glob("*.json")))
    known = [json.loads(line) for line in must("omneo-journal", "list", "--json").splitlines()]
    check(
        "every sale is in the journal, once",
        sorted(document["external_id"] for document in known if document["state"] != "invalid"),
        sorted(f"S-{number}" for number in range(1, hands.dropped + 1)),
    )
    drop(5)
    last = [f"S-{number}" for number in range(hands.dropped - 4, hands.dropped + 1)]
    check("new ones arrive", arrived(last))
    check("nothing waits", until(lambda: not must("omneo-journal", "list", "--state", "waiting"), 60), True)
    check("verify finds nothing", run("omneo-journal", "verify").returncode, 0)


SCENES: dict[str, Callable[[], object]] = {
    "cable": trouble.cable,
    "full": trouble.full,
    "clock": trouble.clock,
    "install": install,
    "people": people,
    "prison": prison,
    "permissions": permissions,
    "kills": kills,
    "many-kills": lambda: kills(20),
    "stall": stall,
    "watchdog": watchdog,
    "nightly": nightly,
    "headoffice": chain.headoffice,
    "upgrade": upgrade,
    "purge": purge,
    "old-books": old_books,
    "burst": burst,
    "after-the-cut": after_the_cut,
}


def main() -> None:
    signal.alarm(1200)
    for name in sys.argv[1:]:
        say(f"-- {name}")
        begun = time.monotonic()
        try:
            if name == "burst":
                (ACT / "dropped").write_text(str(hands.dropped))
            SCENES[name]()
        except Exception as error:  # noqa: BLE001 - a scene that breaks off is a promise that was not kept
            check(f"{name} comes to its end", f"{type(error).__name__}: {error}", "")
        say(f"   {time.monotonic() - begun:.1f} s")
    say(f"done, {hands.failed} failed")


if __name__ == "__main__":
    main()
