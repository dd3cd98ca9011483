"""
The package on a machine of its own: systemd as PID 1, both units for real. `make boot`; `--slice` for a short one.

    python -m tests.boot [--slice] [--strict] [--deb FILE] [SCENE …]

Where what it takes is missing, one line says what, and nothing was tried (exit 0; `--strict`: 69). Limits of memory,
processor and tasks are not enforced in such a container: of these it is only looked whether they are set.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.boot.machine import MissingError, machine

HERE = Path(__file__).resolve().parent
INSIDE = ("act.py", "hands.py", "trouble.py", "chain.py", "probe.py")
DEBS = HERE.parents[1] / "dist/deb"
FORMS = HERE.parent / "formats"
SLICE = ("install", "prison", "permissions", "kills", "stall", "headoffice")
SCENES = (
    "install",
    "people",
    "prison",
    "permissions",
    "many-kills",
    "watchdog",
    "nightly",
    "headoffice",
    "cable",
    "full",
    "clock",
    "upgrade",
    "purge",
    "old-books",
    "burst",
)

UNITS = "usr/lib/systemd/system"
PROGRAMS = "opt/omneo-journal/lib/python3.*/site-packages"
FEEDER = """
    def ready(self, silent_s: float = 0.0) -> None:
        self._tell("READY=1")
        threading.Thread(target=lambda: [self.beat() or time.sleep(1) for _ in iter(int, 1)], daemon=True).start()

    def never(self, silent_s: float = 0.0) -> None:
"""
# Weakened packages: the scene has to find each. Which file, what stands there, what comes in its place.
PLANTS = {
    "a network for ingest": ("prison", f"{UNITS}/omneo-journal.service", r"^(Private|IP|Restrict)(Net|Addr).*\n", ""),
    "the spool for the forwarder": ("prison", f"{UNITS}/omneo-forwarder.service", r"^Inaccessible.*\n", ""),
    "no filter of system calls": ("prison", f"{UNITS}/omneo-forwarder.service", r"^(SystemCall|Restrict).*\n", ""),
    "a journal that the group writes": ("permissions", f"{UNITS}/omneo-journal.service", "Mode=0750", "Mode=0770"),
    "a service that stays down": ("kills", f"{UNITS}/omneo-forwarder.service", "Restart=always", "Restart=no"),
    "a watchdog fed by a thread": (
        "stall",
        f"{PROGRAMS}/journal/notify.py",
        r"\n    def ready\(.*\n",
        FEEDER,
    ),
    "each try without a line told": ("cable", f"{PROGRAMS}/forwarder/line.py", r"link == self\.link and \(", "0 and ("),
    "a disk without a reserve": ("full", f"{PROGRAMS}/journal/reserve.py", r"64 \* 1024 \* 1024", "0"),
    "a clock that nobody looks at": ("clock", f"{PROGRAMS}/journal/cli_ingest.py", r"\[Clock\(book\), ", "["),
    "a purge that takes the journal": ("purge", "DEBIAN/postrm", "rmdir", "rm -rf"),
}


def repacked(package: Path, place: Path, file: str, was: str, becomes: str) -> Path:
    """The same package, but for one file."""
    root, out = place / "root", place / "second.deb"
    subprocess.run(["dpkg-deb", "-R", package, root], check=True)
    (path,) = root.glob(file)
    text, times = re.subn(was, becomes, path.read_text("utf-8"), flags=re.MULTILINE)
    assert times, f"{was} does not stand in {file}"
    path.write_text(text, "utf-8")
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()  # it would be believed without a look at the source
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", root, out], check=True, capture_output=True)
    shutil.rmtree(root)
    return out


def told_clocks(library: Path) -> bool:
    """Clocks that run as they are told: False without a C compiler."""
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "clocks.c", "-ldl"]
    return shutil.which("cc") is not None and subprocess.run(command, check=False).returncode == 0


def play(scenes: list[str], package: Path) -> str:
    """What was said inside."""
    with TemporaryDirectory() as scratch:
        files = {"first.deb": package} | {path.name: path for path in (HERE / name for name in INSIDE)}
        files |= {f"old.{book}.db.gz": FORMS / f"1a.{book}.db.gz" for book in ("journal", "delivery")}
        clocks = Path(scratch) / "clocks.so"
        if {"cable", "full", "clock"} & set(scenes) and told_clocks(clocks):
            files["clocks.so"] = clocks
        if "upgrade" in scenes:
            files["second.deb"] = repacked(package, Path(scratch), "DEBIAN/control", "^Version: .*", r"\g<0>+newer")
        with machine(files) as box:
            if scenes[-1] != "burst":
                return box.boot(*scenes, seconds=900)
            said = box.boot(*scenes, seconds=1200, cut_after="CUT\n").replace("CUT\n", "done, 0 failed\n")
            return said + box.boot("after-the-cut", seconds=300)


def planted(package: Path, names: list[str]) -> int:
    """Every plant has to break a promise, in the scene that is about it."""
    missed = 0
    for name in names or PLANTS:
        scene, *change = PLANTS[name]
        with TemporaryDirectory() as scratch:
            said = play(["install", scene], repacked(package, Path(scratch), *change))
        _, _, about = said.partition(f"-- {scene}\n")
        found = re.findall(r"^FAILED (.*)", about, re.MULTILINE)
        missed += not found
        print(f"planted: {name}: {f'found: {found[0][:150]}' if found else 'NOT FOUND'}", flush=True)
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.boot", description="See tests/boot/__main__.py.")
    parser.add_argument("--slice", action="store_true", help=f"only {', '.join(SLICE)}")
    parser.add_argument(
        "--planted", nargs="*", help="weakened packages (or these) instead, each of which has to be found"
    )
    parser.add_argument("--strict", action="store_true", help="fail where something is missing")
    parser.add_argument("--deb", type=Path, help="the package; else the one in dist/deb")
    parser.add_argument("scenes", nargs="*", help="install has to be the first")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was mounted is not left behind
    package = given.deb or max(DEBS.glob("*.deb"), default=DEBS / "none")
    begun = time.monotonic()
    try:
        if given.planted is not None:
            return planted(package, given.planted)
        said = play(given.scenes or list(SLICE if given.slice else SCENES), package)
    except MissingError as missing:
        print(f"make boot: SKIPPED, nothing was booted: missing here is {missing}.", flush=True)
        return os.EX_UNAVAILABLE if given.strict else 0
    kept, broken = said.count("\nok "), re.findall(r"^FAILED.*", said, re.MULTILINE)
    ends = re.findall(r"^done, (\d+) failed$", said, re.MULTILINE)
    print(said if broken or not ends else re.sub(r"^ok .*\n", "", said, flags=re.MULTILINE))
    print(f"boot: {kept} promises kept, {len(broken)} broken, in {time.monotonic() - begun:.0f} s")
    if given.strict and "\nSKIPPED" in said:
        return os.EX_UNAVAILABLE
    return 1 if broken or not ends or not kept else 0


if __name__ == "__main__":
    sys.exit(main())
