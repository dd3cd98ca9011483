"""
The tests that touch a book, on the oldest SQLite that is supported: Debian 11's own library under this interpreter.

`make oldest` runs it. The library comes from the mirror that apt is set up with here, and must have the checksum
below. Where something for it is missing, one line says what, and nothing was tested (exit 0; `--strict`: 69).
"""

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

VERSION = "3.34.1"
PACKAGE = f"libsqlite3-0={VERSION}-3"
SUITE = "bullseye"
SHA256 = {
    "amd64": "a0b8d3acf4a0483048637637d269be93af48d5c16f6f139f53edd13384ad4686",
    "arm64": "1e33cd39dc4fff2a7edd7bb7e90a71e20fb528f6a581fe0287652e4dae77e0d0",
}
# A Python built beside a newer SQLite asks for these when it loads. Debian 11 left them out; no test calls them.
SHIM = """
void *sqlite3_serialize(void *db, const char *schema, void *size, unsigned flags) { return 0; }
int sqlite3_deserialize(void *db, const char *schema, void *d, long long n, long long m, unsigned f) { return 1; }
"""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NO_BOOK_IN_THEM = (
    *("apportion", "demo", "document", "docs", "link", "note", "notify", "omneo", "outcome", "reliability", "rooms"),
    *("sandbox", "schemas", "torture", "totals", "tree", "units", "volatile", "window", "wire"),
)
# Slow, and no statement in them that others don't make.
NOTHING_NEW_IN_THEM = (
    "breakdowns",
    "disk_model",
    "model",
    "redemption_model",
    "redemption_findings",
    "tamper",
    "trouble",
)
HERE = Path(__file__).resolve().parent


class MissingError(Exception):
    """The machine lacks what it takes to test on the oldest SQLite."""


def pytest_configure() -> None:
    """As a plugin (`-p oldest`): a run that found another SQLite, in any worker, fails at once."""
    if sqlite3.sqlite_version != VERSION:
        raise RuntimeError(f"This was to run on SQLite {VERSION}, and runs on {sqlite3.sqlite_version}.")


def library(place: Path) -> Path:
    """The directory of the library, fetched once. Raises MissingError."""
    if not (place / "whole").exists():
        shutil.rmtree(place, ignore_errors=True)
        for name in ("lists/partial", "cache/archives/partial"):
            (place / name).mkdir(parents=True)
        _fetch(place)
        _run("unpacking the library", ["dpkg-deb", "--extract", *map(str, place.glob("*.deb")), str(place / "root")])
        for found in (place / "root/usr/lib").glob("*/libsqlite3.so.0"):
            shutil.copy(found, place / "libsqlite3.so.0")
        compiler = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(place / "liboldest.so")]
        _run("compiling two stand-in functions", compiler, given=SHIM)
        (place / "whole").touch()
    return place


def _fetch(place: Path) -> None:
    """One package, from the mirror that this machine's apt uses, with lists of our own beside its lists."""
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages", "Component: main"]
    mirrors = [uri for uri in _run("apt", targets).splitlines() if "security" not in uri]
    if not mirrors:
        raise MissingError("a Debian mirror in apt's settings")
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    (place / "sources.list").write_text(f"deb {signed}{mirrors[0]} {SUITE} main\n")
    settings = {
        "Dir::Etc::SourceList": place / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": place / "lists",
        "Dir::Cache": place / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": 2,
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    _run(f"{SUITE} on apt's mirror", [*apt, "-oAPT::Update::Error-Mode=any", "update"])
    _run(f"{PACKAGE} on apt's mirror", [*apt, "download", PACKAGE], where=place)
    architecture = _run("dpkg", ["dpkg", "--print-architecture"]).strip()
    if architecture not in SHA256:
        raise MissingError(f"a checksum of {PACKAGE} for {architecture}, in {Path(__file__).name}")
    for file in place.glob("*.deb"):
        if sha256(file.read_bytes()).hexdigest() != SHA256[architecture]:
            sys.exit(f"make oldest: {file.name} is not the file whose checksum is written down.")


def _run(what: str, command: Sequence[str], *, given: str = "", where: Path | None = None) -> str:
    """Its output. Raises MissingError, with the last line of what it said."""
    try:
        done = subprocess.run(command, input=given, cwd=where, capture_output=True, text=True, timeout=120, check=True)
    except FileNotFoundError:
        raise MissingError(command[0]) from None
    except subprocess.TimeoutExpired:
        raise MissingError(f"{what} (no answer in two minutes)") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines() or ["no word why"]
        raise MissingError(f"{what} ({said[-1]})") from None
    return done.stdout


def main() -> int:
    """Fetch, then hand over to pytest: its exit status is ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail where something is missing")
    parser.add_argument("tests", nargs="*", help="files to run, or options for pytest (after --)")
    given = parser.parse_args()
    try:
        place = library(Path(sys.prefix) / "oldest")
    except MissingError as missing:
        print(f"make oldest: SKIPPED, nothing was tested on SQLite {VERSION}: missing here is {missing}.", flush=True)
        return os.EX_UNAVAILABLE if given.strict else 0
    passed_over = {f"test_{name}" for name in (*NO_BOOK_IN_THEM, *NOTHING_NEW_IN_THEM)}
    tests = given.tests or sorted(str(file) for file in HERE.glob("test_*.py") if file.stem not in passed_over)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(place),
        "LD_PRELOAD": "liboldest.so",
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(HERE)])),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "oldest", "-n", "2", "--dist", "loadfile", *tests]
    return subprocess.run(command, env=environment, cwd=HERE.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
