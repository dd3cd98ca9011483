"""
Runs under one unit's own settings, in place of its program: what is it let do? One line a deed, `yes` or `no`.

Only the standard library, and none of our code: it is what somebody would try who has taken the program over.
"""

import contextlib
import ctypes
import mmap
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
JOURNAL, DELIVERY = Path("/var/lib/omneo-journal/journal.db"), Path("/var/lib/omneo-forwarder/delivery.db")
SPOOL = Path("/var/spool/omneo")


def call(name: str, *words: int | bytes | None) -> None:
    ctypes.set_errno(0)
    if getattr(LIBC, name)(*words) == -1:
        raise OSError(ctypes.get_errno(), name)


def touch(path: Path) -> None:
    path.write_bytes(b"")
    path.unlink()


def look(path: Path) -> None:
    assert list(path.iterdir())


def entries(book: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{book}?mode=ro", uri=True)) as db:
        assert db.execute("SELECT count(*) FROM log").fetchone()[0] > 0


def forge(book: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{book}?mode=rw", uri=True, isolation_level=None)) as db:
        db.execute("CREATE TABLE forged (x)")
        db.execute("DROP TABLE forged")


def connect(family: int, address: tuple[str, int]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as door:
        door.settimeout(2)
        door.connect(address)


def program(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=10)


def writable_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def setuid() -> None:
    path = Path(os.environ["STATE_DIRECTORY"], "setuid")
    path.write_bytes(b"")
    try:
        path.chmod(0o4755)
    finally:
        path.unlink()


def others() -> None:
    mine = {os.getpid(), os.getppid()}
    assert [each for each in Path("/proc").iterdir() if each.name.isdigit() and int(each.name) not in mine]


def interfaces() -> None:
    assert [name for _, name in socket.if_nameindex() if name != "lo"]


def secret(unit: str, name: str) -> None:
    assert Path("/run/credentials", unit, name).read_bytes()


DEEDS: dict[str, Callable[[], object]] = {
    "write its state": lambda: touch(Path(os.environ["STATE_DIRECTORY"], "probe")),
    "read the boot id": lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
    "open a local socket": lambda: socket.socket(socket.AF_UNIX).close(),
    "read its own secret": lambda: look(Path(os.environ["CREDENTIALS_DIRECTORY"])),
    "read the journal": lambda: entries(JOURNAL),
    "write the journal": lambda: forge(JOURNAL),
    "put a file beside the journal": lambda: touch(JOURNAL.with_name("journal.db-journal")),
    "read the delivery book": lambda: entries(DELIVERY),
    "write the delivery book": lambda: forge(DELIVERY),
    "look into the spool": lambda: look(SPOOL),
    "write into the spool": lambda: touch(SPOOL / "probe"),
    "write into a till's directory": lambda: touch(SPOOL / "till-1/probe"),
    "look into the backups": lambda: list(Path("/var/backups/omneo").iterdir()),
    "open an internet socket": lambda: socket.socket(socket.AF_INET).close(),
    "reach the sandbox": lambda: connect(socket.AF_INET, ("127.0.0.1", 8080)),
    "open an IPv6 socket": lambda: socket.socket(socket.AF_INET6).close(),
    "open a raw packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK).close(),
    "read root's copy of the token": lambda: Path("/etc/credstore/omneo-token").read_text(),
    "read root's copy of the key": lambda: Path("/etc/credstore/omneo-journal-key").read_text(),
    "read the forwarder's token": lambda: secret("omneo-forwarder.service", "omneo-token"),
    "read the journal's key": lambda: secret("omneo-journal.service", "omneo-journal-key"),
    "write its own program": lambda: touch(Path("/opt/omneo-journal/bin/probe")),
    "write /etc": lambda: touch(Path("/etc/probe")),
    "write /usr": lambda: touch(Path("/usr/probe")),
    "write /boot": lambda: touch(Path("/boot/probe")),
    "look into /root": lambda: look(Path("/root")),
    "look into /home": lambda: look(Path("/home")),
    "see another's files in /tmp": lambda: Path("/tmp/not-for-you").read_text(),
    "see other processes": others,
    "end another's process": lambda: os.kill(1, 0),
    "open the kernel's log": lambda: Path("/dev/kmsg").open("rb").close(),
    "open a memory device": lambda: Path("/dev/mem").open("rb").close(),
    "make a device": lambda: os.mknod(Path(os.environ["STATE_DIRECTORY"], "disk"), 0o60600, os.makedev(254, 0)),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "name the machine": lambda: socket.sethostname("probe"),
    "write a kernel setting": lambda: Path("/proc/sys/kernel/core_pattern").write_text("core"),
    "write a control group": lambda: Path("/sys/fs/cgroup/probe").mkdir(),
    "mount": lambda: call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "begin a user namespace": lambda: call("unshare", 0x10000000),
    "begin a network namespace": lambda: call("unshare", 0x40000000),
    "change its root": lambda: os.chroot("/mnt"),
    "become root": lambda: os.setuid(0),
    "give a file away": lambda: os.chown(os.environ["STATE_DIRECTORY"], 0, 0),
    "make a file setuid": setuid,
    "trace a process": lambda: call("ptrace", 16, os.getppid(), None, None),
    "write memory that runs": writable_code,
    "take a real-time priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "be nicer to itself": lambda: os.nice(-5),
    "change its personality": lambda: call("personality", 0x0040000),
    "load a module": lambda: program("modprobe", "dummy"),
    "restart the machine": lambda: call("reboot", 0x89ABCDEF),
    "gain by sudo or su": lambda: program("su", "-c", "true"),
    "keep a key in the kernel": lambda: call("keyctl", 0, -3, 0),
}


def tried(deed: Callable[[], object]) -> str:
    try:
        deed()
    except BaseException as error:  # noqa: BLE001 - whatever stops it
        return f"no\t{type(error).__name__}: {str(error)[:60]}"
    return "yes\t"


if __name__ == "__main__":
    for name, deed in DEEDS.items():
        sys.stdout.write(f"{name}\t{tried(deed)}\n")
        sys.stdout.flush()
