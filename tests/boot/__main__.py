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
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.boot.machine import MissingError, machine

HERE = Path(__file__).resolve().parent
DEBS = HERE.parents[1] / "dist/deb"
SLICE = ("install", "prison", "permissions", "kills", "stall")
SCENES = (
    "install",
    "people",
    "prison",
    "permissions",
    "many-kills",
    "watchdog",
    "nightly",
    "upgrade",
    "purge",
    "burst",
)


def newer(package: Path, place: Path) -> Path:
    """The same package with a higher number."""
    root, out = place / "root", place / "second.deb"
    subprocess.run(["dpkg-deb", "-R", package, root], check=True)
    control = root / "DEBIAN/control"
    text = re.sub(r"^Version: (.*)$", r"Version: \1+newer", control.read_text("utf-8"), flags=re.MULTILINE)
    control.write_text(text, "utf-8")
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", root, out], check=True, capture_output=True)
    shutil.rmtree(root)
    return out


def play(scenes: list[str], package: Path) -> str:
    """What was said inside."""
    with TemporaryDirectory() as scratch:
        files = {"first.deb": package, "act.py": HERE / "act.py", "probe.py": HERE / "probe.py"}
        if "upgrade" in scenes:
            files["second.deb"] = newer(package, Path(scratch))
        with machine(files) as box:
            if scenes[-1] != "burst":
                return box.boot(*scenes, seconds=600)
            said = box.boot(*scenes, seconds=900, cut_after="CUT\n").replace("CUT\n", "done, 0 failed\n")
            return said + box.boot("after-the-cut", seconds=300)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.boot", description="See tests/boot/__main__.py.")
    parser.add_argument("--slice", action="store_true", help=f"only {', '.join(SLICE)}")
    parser.add_argument("--strict", action="store_true", help="fail where something is missing")
    parser.add_argument("--deb", type=Path, help="the package; else the one in dist/deb")
    parser.add_argument("scenes", nargs="*", help="install has to be the first")
    given = parser.parse_args()
    package = given.deb or max(DEBS.glob("*.deb"), default=DEBS / "none")
    begun = time.monotonic()
    try:
        said = play(given.scenes or list(SLICE if given.slice else SCENES), package)
    except MissingError as missing:
        print(f"make boot: SKIPPED, nothing was booted: missing here is {missing}.", flush=True)
        return os.EX_UNAVAILABLE if given.strict else 0
    kept, broken = said.count("\nok "), re.findall(r"^FAILED.*", said, re.MULTILINE)
    ends = re.findall(r"^done, (\d+) failed$", said, re.MULTILINE)
    print(said if broken or not ends else re.sub(r"^ok .*\n", "", said, flags=re.MULTILINE))
    print(f"boot: {kept} promises kept, {len(broken)} broken, in {time.monotonic() - begun:.0f} s")
    return 1 if broken or not ends or not kept else 0


if __name__ == "__main__":
    sys.exit(main())
