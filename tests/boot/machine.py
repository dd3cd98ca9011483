"""
A throw-away machine: systemd as PID 1 in a container, over an overlay of the root of the machine that runs this.

What it writes is gone with it; its host is only read. It has a network of its own with nothing on it, and none of its
host's services starts in it. It can be booted more than once, so that a power cut is followed by a start.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

HIDDEN = ("/root", "/home", "/srv", "/work")  # a machine that has never seen the project
DISK_BYTES = 2 * 1024**3
ACT = """[Unit]
After=basic.target dbus.socket
[Service]
Type=oneshot
ExecStart=-/usr/bin/python3 -B /act/act.py {words}
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=file:/act/out
StandardError=inherit
TimeoutStartSec=infinity
"""


class MissingError(Exception):
    """What it takes to boot a machine is not here."""


class Machine:
    """One root directory, and what is booted in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def boot(self, *words: str, seconds: float, cut_after: str = "") -> str:
        """
        Boot, let act.py do what is asked, and wait for the end. Returns what it said.

        `cut_after`: as soon as it has said this, the power is cut: everything is killed at once.
        """
        out = self.root / "act/out"
        out.write_text("", "utf-8")
        unit = self.root / "etc/systemd/system/act.service"
        unit.write_text(ACT.format(words=" ".join(words)), "utf-8")
        command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=pipe", "--private-network"]
        command += [f"--tmpfs={path}" for path in HIDDEN if (self.root / path[1:]).is_dir()]
        command += ["--directory", str(self.root), "--boot", "systemd.unit=multi-user.target"]
        with (self.root.parent / "boot.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            try:
                give_up = time.monotonic() + seconds
                while process.poll() is None:
                    said = out.read_text("utf-8")
                    if cut_after and cut_after in said:
                        break
                    if time.monotonic() > give_up:
                        sys.stdout.write(said)
                        raise AssertionError(f"the machine did not end within {seconds:.0f} s")
                    time.sleep(0.05)
            finally:
                if process.poll() is None:
                    kill_inside(process.pid)
                    process.kill()
                process.wait()
        return out.read_text("utf-8")


def kill_inside(nspawn: int) -> None:
    """PID 1 of the container dies, and the kernel kills everything with it: as near to a power cut as it comes."""
    children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text("utf-8").split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)


@contextmanager
def machine(files: Mapping[str, Path]) -> Iterator[Machine]:
    """A machine with these files laid into it. Raises MissingError."""
    if os.geteuid() != 0:
        raise MissingError("the right to mount (root)")
    if shutil.which("systemd-nspawn") is None:
        raise MissingError("systemd-nspawn (package systemd-container)")
    place = Path(mkdtemp(prefix="omneo-boot-"))
    for name in ("upper", "work", "root"):
        (place / name).mkdir(mode=0o755)
    root = place / "root"
    layers = f"lowerdir=/,upperdir={place}/upper,workdir={place}/work"
    try:
        done = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", layers, root], capture_output=True, check=False
        )
        if done.returncode:
            raise MissingError("overlayfs")
        try:
            _furnish(root, files)
            with _small_disk(place / "disk.img", root / "disk"):
                yield Machine(root)
        finally:
            subprocess.run(["umount", root], check=True)
    finally:
        shutil.rmtree(place)


@contextmanager
def _small_disk(image: Path, at: Path) -> Iterator[None]:
    """A disk of its own, on a file with holes, that a scene can fill; nothing there where no such thing can be had."""
    image.touch()
    os.truncate(image, DISK_BYTES)
    made = ["mkfs.ext4", "-q", "-m", "0", image], ["mount", "-o", "loop", image, at]
    at.mkdir()
    there = all(subprocess.run(command, capture_output=True, check=False).returncode == 0 for command in made)
    try:
        yield
    finally:
        if there:
            subprocess.run(["umount", at], check=True)


def _furnish(root: Path, files: Mapping[str, Path]) -> None:
    wanted = root / "etc/systemd/system"
    for wants in wanted.glob("*.wants"):
        shutil.rmtree(wants)
    (root / "etc/machine-id").write_text("", "utf-8")
    (root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)  # a container's way to keep services from starting
    (root / "act").mkdir()
    for name, source in files.items():
        shutil.copyfile(source, root / "act" / name)
    (wanted / "multi-user.target.wants").mkdir()
    (wanted / "multi-user.target.wants/act.service").symlink_to("../act.service")
