"""A PostgreSQL of one's own: Debian's package, a scratch directory with a socket and no port, gone when it is over."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from forwarder import headoffice_schema

USER = "postgres"  # the server doesn't run as root


def binaries() -> Path | None:
    """Where the newest server's programs are; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def scratch() -> Path:
    """Memory, if there is enough: these campaigns kill programs and no machine, so no commit has to wait for a disk."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 4e9 else Path(tempfile.gettempdir())


class Cluster:
    """A server that can be killed and started again."""

    def __init__(self, root: Path, **settings: Any) -> None:
        place = binaries()
        assert place is not None
        self.bin, self.root, self.data = place, root, root / "data"
        self.settings = {"fsync": "off", "full_page_writes": "off", "max_connections": 300} | settings
        self.process: subprocess.Popen[bytes] | None = None
        self._as(
            self.bin / "initdb", "-D", self.data, "-U", "owner", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"
        )

    def start(self) -> None:
        asked = {"listen_addresses": "", "unix_socket_directories": self.root, "log_min_messages": "warning"}
        words = [word for name, value in (asked | self.settings).items() for word in ("-c", f"{name}={value}")]
        with (self.root / "log").open("ab") as out:
            command = self._command(self.bin / "postgres", "-D", self.data, *words)
            self.process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        give_up = time.monotonic() + 60
        while True:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url()).close()
                return
            assert time.monotonic() < give_up, (self.root / "log").read_text()[-2000:]
            assert self.process.poll() is None, (self.root / "log").read_text()[-2000:]
            time.sleep(0.02)

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT: at once, in good order; SIGQUIT: as after a crash."""
        if self.process is None:
            return
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.kill(self._head(), how)
        self.process.wait(timeout=60)
        self.process = None

    def crash(self) -> None:
        """Every process of the server is killed, as the kernel does when memory is short."""
        assert self.process is not None
        head = self._head()
        os.kill(head, signal.SIGSTOP)  # no more children
        children = self._children()
        for pid in [head, *children]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=60)
        self.process = None
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            time.sleep(0.005)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def certify(self, pem: Path) -> None:
        """It shows this certificate from the next connection on."""
        own = self.root / pem.name
        own.write_bytes(pem.read_bytes())
        own.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(own, USER, USER)
        with psycopg.connect(self.url(), autocommit=True) as db:
            for name, value in (("ssl_cert_file", own), ("ssl_key_file", own), ("ssl", "on")):
                db.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.reload()

    def reload(self) -> None:
        """Its files are read again; they are when this returns."""
        before = self._read_at()
        with psycopg.connect(self.url()) as db:
            db.execute("SELECT pg_reload_conf()")
        give_up = time.monotonic() + 60
        while self._read_at() == before:
            assert time.monotonic() < give_up
            time.sleep(0.02)

    def _read_at(self) -> Any:
        with psycopg.connect(self.url()) as db:
            return db.execute("SELECT pg_conf_load_time()").fetchone()

    def cpu_s(self) -> float:
        """Processor time that the server has used so far, with its children's: no matter who else is at work here."""
        head, ticks = self._head(), 0
        for pid in [head, *self._children()]:
            with suppress(FileNotFoundError, ProcessLookupError):
                told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, told[11:15] if pid == head else told[11:13]))  # of the ended ones, its own too
        return ticks / os.sysconf("SC_CLK_TCK")

    def private_mb(self) -> float:
        """Memory that the server's processes have each for itself."""
        kilobytes = 0
        for pid in self._children():
            with suppress(FileNotFoundError, ProcessLookupError):
                told = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                kilobytes += sum(int(line.split()[1]) for line in told if line.startswith("Private_"))
        return kilobytes / 1024

    def _head(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def _children(self) -> list[int]:
        asked = ["pgrep", "-P", str(self._head())]
        return [*map(int, subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split())]

    def url(self, role: str = "owner", database: str = "postgres") -> str:
        return f"postgresql://{role}@/{database}?host={self.root}&port={self.settings.get('port', 5432)}"

    def ledger(self, name: str, template: str | None = None) -> str:
        """A new database with the schema; the owner's address of it."""
        with psycopg.connect(self.url(), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        if not template:
            headoffice_schema.lay(self.url(database=name))
        return self.url(database=name)

    def _as(self, *words: Any) -> None:
        subprocess.run(self._command(*words), check=True, capture_output=True, timeout=120)

    def _command(self, *words: Any) -> list[str]:
        said = [str(word) for word in words]
        other = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []
        return ["setpriv", "--pdeathsig=INT", *other, *said]  # whoever started it may be killed


@contextmanager
def running(place: Path | None = None, **settings: Any) -> Iterator[Cluster]:
    """A server while the block runs."""
    root = Path(tempfile.mkdtemp(prefix="omneo-pg-", dir=place))
    try:
        if os.geteuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(root, user.pw_uid, user.pw_gid)
        cluster = Cluster(root, **settings)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def pooler() -> str | None:
    """PgBouncer's program; None if it is not here."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def pooled(server: Cluster, roles: list[str], connections: int) -> Iterator[str]:
    """A pooler in front of a server while the block runs, with so many connections for all of them; its directory."""
    with tempfile.TemporaryDirectory(dir=server.root) as place:
        front = Path(place)
        asked = {"unix_socket_dir": front, "listen_addr": "", "auth_type": "trust", "auth_file": front / "users"}
        asked |= {"pool_mode": "transaction", "default_pool_size": 1, "max_db_connections": connections}
        settings = "\n".join(f"{name} = {value}" for name, value in asked.items())
        (front / "users").write_text("".join(f'"{role}" ""\n' for role in roles))
        (front / "ini").write_text(f"[databases]\n* = host={server.root}\n[pgbouncer]\n{settings}\n")
        for path in (front, *front.iterdir()) if os.geteuid() == 0 else ():
            shutil.chown(path, USER, USER)
        command = server._command(pooler(), front / "ini")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                give_up = time.monotonic() + 60
                while not (front / ".s.PGSQL.6432").exists():
                    assert process.poll() is None
                    assert time.monotonic() < give_up
                    time.sleep(0.02)
                yield f"{front}&port=6432"
            finally:
                process.terminate()


def enrol(owner: str, role: str, name: str | None = None, region: str = "east", timezone: str = "UTC") -> None:
    """A store may speak from now on."""
    with psycopg.connect(owner) as db:
        db.execute(f'CREATE ROLE "{role}" LOGIN') if not db.execute(
            "SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)
        ).fetchone() else None
        db.execute("SELECT ledger.enrol(%s, %s, %s, %s)", (role, name or role, region, timezone))
