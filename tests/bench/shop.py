"""What every measurement stands on: sales of about 2 KB, a place with a spool and books, and programs to run there."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE_S = 600.0
NAP_S = 0.0002
NAIVE, IDEAL, QUICK = (Path(__file__).with_name(f"{name}.py") for name in ("naive", "ideal", "quick"))


def sale(number: int) -> bytes:
    """A sale of about 2 KB, as a till writes it."""
    lines = [
        {
            "name": f"Linen Shirt, colour {line}",
            "sku": f"LIN-{number % 997:03d}-{line}",
            "quantity": 1,
            "price_current": 19.95,
            "price_sell": 19.95,
            "price_original": 24.95,
            "price_tax": 1.81,
            "product_variant_id": 333000 + line,
            "meta": {"barcode": f"93{number:09d}{line}", "department": "Menswear"},
        }
        for line in range(7)
    ]
    document = {
        "kind": "sale",
        "external_id": f"MEL01-T{number % 4}-{number:07d}",
        "terminal": f"MEL01-T{number % 4}",
        "sequence": number // 4,
        "total": 139.65,
        "transacted_at": "2025-06-15 14:32:00",
        "timezone": "Australia/Melbourne",
        "location_id": "MEL01",
        "staff_id": 1993,
        "receipt_ref": f"R{number:07d}",
        "payments": ["EFTPOS"],
        "items": lines,
    }
    if number % 2:
        document |= {"profile_id": "jane@example.com", "profile_id_handle": "email"}
    return json.dumps(document).encode()


def wait(done: Callable[[], Any], most: float = 10.0, nap_s: float = NAP_S) -> None:
    """Look again and again, with short naps: the other programs need the processor too."""
    give_up = time.perf_counter() + most
    while not done():
        if time.perf_counter() > give_up:
            raise RuntimeError("waited in vain")
        time.sleep(nap_s)


class Spent(NamedTuple):
    """What a process took."""

    wall_s: float
    cpu_s: float  # user and system
    most_mb: float  # resident


class Shop:
    """A spool, two books, and our programs and the naive one over them, each a real process."""

    def __init__(self, root: Path) -> None:
        self.spool, self.journal, self.naive = root / "spool", root / "journal.db", root / "naive.db"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("OMNEO_")}
        self.env |= {"OMNEO_JOURNAL_DB": str(self.journal), "OMNEO_JOURNAL_SPOOL": str(self.spool)}
        self.env |= {"OMNEO_TOKEN": "sandbox"}
        self.run(self.command("journal", "init"))

    def command(self, package: str, *arguments: str) -> list[str]:
        """One of our programs."""
        return [sys.executable, "-P", "-c", f"from {package}.cli import main; main()", *arguments]

    def run(self, command: list[str]) -> float:
        """Seconds from the start of a process until it has ended, well."""
        return self.spend(command).wall_s

    def spend(self, command: list[str], gone: Path | None = None) -> Spent:
        """What a process took, from its start until it has ended, well; or, by the clock, until this file was gone."""
        began = time.perf_counter()
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL, stderr=said)
            while gone is not None and gone.exists() and time.perf_counter() - began < PATIENCE_S:
                time.sleep(0.001)
            wall_s = time.perf_counter() - began
            _, status, used = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - began if gone is None else wall_s
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise RuntimeError(
                    f"{command[-8:]} ended with {process.returncode}: {os.pread(said.fileno(), 2000, 0)!r}"
                )
        return Spent(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)

    @contextlib.contextmanager
    def daemon(self, package: str, *arguments: str) -> Iterator[None]:
        """One of our programs until the block ends; it runs once it has said so."""
        command = self.command(package, *arguments)
        # Into a file: a pipe that nobody reads would be full after some hundred lines, and hold the program up.
        with tempfile.TemporaryFile() as said, subprocess.Popen(command, env=self.env, stderr=said) as process:
            try:
                wait(lambda: b'"ready"' in os.pread(said.fileno(), 65536, 0) or process.poll() is not None, PATIENCE_S)
                if process.poll() is not None:
                    raise RuntimeError(f"{package} did not start: {os.pread(said.fileno(), 2000, 0)!r}")
                yield
            finally:
                process.terminate()

    def fill(self, numbers: range) -> None:
        """So many files wait in the spool, oldest first, and the disk is quiet again."""
        for number in numbers:
            (self.spool / f"sale-{number:07d}.json").write_bytes(sale(number))
        os.sync()

    def drop(self, number: int) -> Path:
        """One file by rename, as the contract asks."""
        path = self.spool / f"sale-{number:07d}.json"
        draft = path.with_name(f".{path.name}")
        draft.write_bytes(sale(number))
        draft.rename(path)
        return path


@contextlib.contextmanager
def shop(directory: Path | None = None) -> Iterator[Shop]:
    """A new place, gone at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as root:
        yield Shop(Path(root))


class Quick:
    """The server that takes everything (quick.py), in a process of its own."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}/api/v3"

    def last(self) -> dict[str, Any]:
        """What it saw."""
        with contextlib.closing(http.client.HTTPConnection(self.host, timeout=60)) as line:
            line.request("GET", "/last")
            found: dict[str, Any] = json.loads(line.getresponse().read())
        return found


@contextlib.contextmanager
def quick(delay_ms: float = 0, port: int = 0) -> Iterator[Quick]:
    """It until the block ends."""
    command = [sys.executable, str(QUICK), str(delay_ms), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield Quick(int(process.stdout.readline()))
        finally:
            process.terminate()


class Omneo:
    """The sandbox in a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self.process, self.url, self.host = process, url, url.split("/")[2]
        self.line = http.client.HTTPConnection(self.host, timeout=60)

    def desk(self, method: str, route: str) -> Any:
        """One request to its control desk."""
        self.line.request(method, f"/_sandbox{route}")
        raw = self.line.getresponse().read()
        return json.loads(raw) if raw else None

    @property
    def sales(self) -> int:
        """How many it holds."""
        return int(self.desk("GET", "/counts")["transactions"])


@contextlib.contextmanager
def omneo() -> Iterator[Omneo]:
    """The sandbox until the block ends."""
    code = "from forwarder.sandbox.serve import serve; serve(0, announce=lambda url: print(url, flush=True))"
    with subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield Omneo(process, process.stdout.readline().decode().strip())
        finally:
            process.terminate()
