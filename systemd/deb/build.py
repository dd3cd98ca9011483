"""
A .deb with a virtual environment of its own: `python build.py OUT`, from a checkout and its .venv (`make deb`).

Everything in it comes from the lock, by hash. It is for this machine's architecture and for the Python of its Debian.
"""

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = HERE.parents[1]
PREFIX = Path("opt/omneo-journal")
PROGRAMS = ("omneo-journal", "omneo-forwarder")
EXTRAS = ("sandbox", "ledger")  # so that a box can be tried out before it has a token; for chains
SPARED = {"pip"}  # sqlite-utils asks for it, for a command that installs plugins
PYTHON = "/usr/bin/python3"  # the one that the box has, too
TOLD = "import json, sys; print(json.dumps(sys.version_info[:2]))"


def run(*command: str | Path, where: Path = HOME, **environment: str) -> str:
    done = subprocess.run(command, cwd=where, env=os.environ | environment, check=True, capture_output=True, text=True)
    return done.stdout


def needed(name: str, extras: Sequence[str] = ()) -> set[str]:
    """What a distribution pulls in, as the environment that runs this has it."""
    from packaging.requirements import Requirement

    found, queue = set(), [(name, tuple(extras))]
    while queue:
        name, extras = queue.pop()
        for line in distribution(name).requires or []:
            wanted = Requirement(line)
            marker = wanted.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                key = re.sub(r"[-_.]+", "-", wanted.name).lower()
                if key not in found | SPARED:
                    found.add(key)
                    queue.append((key, tuple(wanted.extras)))
    return found


def locked(names: set[str], lock: str) -> str:
    """The lock's lines of these distributions, hashes and all."""
    blocks = re.findall(r"^\S.*(?:\n[ ]+\S.*)*", lock, re.MULTILINE)
    chosen = {re.split(r"[=\s;\[]", block)[0].lower(): block for block in blocks}
    if missing := names - chosen.keys():
        sys.exit(f"make deb: not in requirements.lock: {', '.join(sorted(missing))}")
    return "\n".join(chosen[name] for name in sorted(names)) + "\n"


def environment(root: Path, wheel: Path) -> None:
    """Python, the libraries and both programs under the prefix, as if they had been installed there."""
    place = root / PREFIX
    run(PYTHON, "-m", "venv", "--without-pip", place)
    lock = root.parent / "runtime.lock"
    lock.write_text(locked(needed("omneo-journal", EXTRAS), (HOME / "requirements.lock").read_text("utf-8")), "utf-8")
    pip = (sys.executable, "-m", "pip", "--python", place / "bin/python", "--disable-pip-version-check", "install")
    run(*pip, "--quiet", "--no-compile", "--no-deps", "--require-hashes", "-r", lock)
    run(*pip, "--quiet", "--no-compile", "--no-deps", wheel)
    for script in (place / "bin").iterdir():
        if script.name in PROGRAMS:
            _, _, rest = script.read_text("utf-8").partition("\n")
            script.write_text(f"#!/{PREFIX}/bin/python -I\n{rest}", "utf-8")
        elif not script.name.startswith("python"):
            script.unlink()
    (place / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n", "utf-8")
    for record in place.rglob("direct_url.json"):
        record.unlink()  # where on the building machine the wheel lay
    compiled = ("--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/", place / "lib")
    run(place / "bin/python", "-m", "compileall", "-q", *compiled)
    for name in ("pause", "nightly"):
        put(HOME / "systemd" / name, place / "libexec" / name, 0o755)


def put(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def settings(root: Path) -> None:
    """Units, users, directories, and what both programs are told."""
    systemd = HOME / "systemd"
    for unit in systemd.iterdir():
        if unit.suffix in {".service", ".target", ".timer"}:
            put(unit, root / "usr/lib/systemd/system" / unit.name)
    put(systemd / "omneo.sysusers", root / "usr/lib/sysusers.d/omneo-journal.conf")
    put(systemd / "omneo.tmpfiles", root / "usr/lib/tmpfiles.d/omneo-journal.conf")
    put(systemd / "omneo.env", root / "etc/omneo/omneo.env")


def for_people(root: Path, version: str) -> None:
    """Commands on the path, man pages, completion, documents."""
    for program in PROGRAMS:
        wrapper = root / "usr/bin" / program
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        wrapper.write_text((HERE / "wrapper").read_text("utf-8").replace("@program@", program), "utf-8")
        wrapper.chmod(0o755)
        variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
        for shell, path in {
            "bash": f"bash-completion/completions/{program}",
            "zsh": f"zsh/vendor-completions/_{program}",
            "fish": f"fish/vendor_completions.d/{program}.fish",
        }.items():
            target = root / "usr/share" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(run(Path(sys.executable).parent / program, **{variable: f"{shell}_source"}), "utf-8")
    manual = root / "usr/share/man/man1"
    manual.mkdir(parents=True)
    run(sys.executable, HERE / "man.py", manual, version)
    papers = root / "usr/share/doc/omneo-journal"
    for name in ("README.md", *(f"docs/{path.name}" for path in (HOME / "docs").glob("*.md"))):
        put(HOME / name, papers / name)
    put(HOME / "CHANGELOG.md", papers / "changelog")
    put(HOME / "LICENSE", papers / "copyright")
    for page in (*manual.iterdir(), papers / "changelog"):
        page.with_name(f"{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()


def files(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())


def control(root: Path, version: str) -> str:
    """What dpkg reads. Returns the architecture."""
    python = json.loads(run(root / PREFIX / "bin/python", "-c", TOLD))
    architecture = run("dpkg", "--print-architecture").strip()
    facts = {
        "version": version,
        "architecture": architecture,
        "size": str(sum(path.stat().st_size for path in files(root)) // 1024),
        "minor": str(python[1]),
        "next": str(python[1] + 1),
    }
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files(root)]  # noqa: S324
    debian = root / "DEBIAN"
    debian.mkdir()
    text = (HERE / "control").read_text("utf-8")
    for name, fact in facts.items():
        text = text.replace(f"@{name}@", fact)
    (debian / "control").write_text(text, "utf-8")
    (debian / "md5sums").write_text("".join(sums), "utf-8")
    (debian / "conffiles").write_text("/etc/omneo/omneo.env\n", "utf-8")
    for name in ("postinst", "prerm", "postrm"):
        put(HERE / name, debian / name, 0o755)
    return architecture


def main() -> None:
    """Prints the package's path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--revision", default="1", help="of the package, after the program's version")
    given = parser.parse_args()
    os.umask(0o022)
    version = tomllib.loads((HOME / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    (wheel,) = (HOME / ".venv/wheel").glob("*.whl")
    place = given.out.resolve()
    shutil.rmtree(place, ignore_errors=True)
    root = place / "root"
    root.mkdir(parents=True)
    environment(root, wheel)
    settings(root)
    for_people(root, version)
    version = f"{version}-{given.revision}"
    package = place / f"omneo-journal_{version}_{control(root, version)}.deb"
    moment = run("git", "log", "-1", "--format=%ct").strip() if (HOME / ".git").exists() else "0"
    run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, package, SOURCE_DATE_EPOCH=moment)
    shutil.rmtree(root)
    (place / "runtime.lock").unlink()
    sys.stdout.write(f"{package.relative_to(HOME) if package.is_relative_to(HOME) else package}\n")


if __name__ == "__main__":
    main()
