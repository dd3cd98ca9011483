"""A shop's yard: the spool, and the real `omneo-journal ingest` over it, which may read only what its user may read."""

import contextlib
import dataclasses
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from tests.campaign.drops import Drop, Tills, spell
from tests.faults.judge import Near, judge

# Root may read everything; without these it may read what any user may whose files they are.
AS_A_USER = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
SOON_S = 15.0  # a rescan every 2 s, on a busy machine


class Yard:
    """Files come in every way; what must not be taken is remembered as junk or as a secret."""

    def __init__(self, root: Path, seed: object, plant: str = "") -> None:
        root.mkdir()
        self.place = Near(root, plant)
        self.spool = self.place.spool
        self.dice = Random(str(seed))
        self.tills = Tills(self.dice)
        self.drops: list[Drop] = []
        self.junk: list[Path] = []
        self.secrets: set[str] = set()
        self.found: list[str] = []
        self.daemon = self.place.program("journal", "ingest")
        if os.geteuid() == 0:
            self.daemon.command = [*AS_A_USER, *self.daemon.command]

    def open(self, before: list[str] | None = None) -> None:
        """`before`: what to run the program under."""
        if not self.place.journal.exists():
            init = self.place.program("journal", "init")
            init.start()
            assert init.process is not None
            if init.process.wait(60) != 0:
                raise RuntimeError("no journal")
        self.daemon.command = [*(before or []), *self.daemon.command]
        self.daemon.start()

    # ── What tills do ──

    def paper(self, what: str = "sale") -> Drop:
        return dataclasses.replace(self.tills.drop(what, 0.0), in_place=False)

    def sell(self, count: int = 1, name: str | None = None, where: Path | None = None) -> list[Path]:
        """Good documents, by rename. `name` below the spool; `where` instead of the spool."""
        paths = []
        for _ in range(count):
            drop = self.paper()
            drop = drop if name is None else dataclasses.replace(drop, path=name)
            self.drops.append(drop)
            paths.append(self.put((where or self.spool) / drop.path, drop.body))
        return paths

    def spoil(self, name: str) -> Path:
        """A document that breaks its schema: judged at once, and to be set aside."""
        doc = self.tills._unnumbered_sale() | {"total": "a lot"}
        drop = Drop(0.0, "broken", name, spell(doc, self.dice).encode())
        self.drops.append(drop)
        return self.put(self.spool / name, drop.body)

    def put(self, path: Path, body: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{self.dice.randrange(10**12)}.part")
        draft.write_bytes(body)
        return draft.rename(path)

    def secret(self) -> Path:
        """A good document that is nobody's business, outside the spool."""
        drop = self.paper()
        self.tills.numbers = Counter()  # it is never seen: no number may be missed
        body = drop.body.replace(b'"terminal"', b'"x_terminal"').replace(b'"sequence"', b'"x_sequence"')
        assert drop.external_id
        self.secrets.add(drop.external_id)
        outside = self.place.root / f"secret-{len(self.secrets)}.json"
        outside.write_bytes(body)
        return outside

    def leave(self, path: Path) -> Path:
        """Something that has to stay where it is."""
        self.junk.append(path)
        return path

    # ── Looking ──

    def known(self) -> Counter[str]:
        """How often the journal holds each external_id."""
        query = "SELECT external_id FROM log WHERE kind = 'sale'"
        with contextlib.closing(sqlite3.connect(f"{self.place.journal.as_uri()}?mode=ro", uri=True, timeout=20)) as db:
            return Counter(external_id for (external_id,) in db.execute(query))

    def until(self, true: Callable[[], bool], seconds: float = SOON_S) -> bool:
        give_up = time.monotonic() + seconds
        while not true():
            if time.monotonic() > give_up:
                return False
            self.daemon.look()
            time.sleep(0.05)
        return True

    def taken(self, drops: list[Drop] | None = None) -> bool:
        known = self.known()
        return all(known[drop.external_id] for drop in drops or self.drops if drop.what == "sale" and drop.external_id)

    def settles(self, what: str, seconds: float = SOON_S) -> None:
        """Everything good that was dropped is in the journal soon, whatever else lies about."""
        if not self.until(self.taken, seconds):
            known = self.known()
            missing = [drop.path for drop in self.drops if drop.what == "sale" and not known[str(drop.external_id)]]
            self.found.append(f"{what}: {len(missing)} good files not taken in {seconds:.0f} s: {missing[:3]!r}")

    def peak(self) -> int:
        """Bytes that the program took at most."""
        assert self.daemon.process is not None
        pid = self.daemon.process.pid
        with contextlib.suppress(FileNotFoundError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            pid = int(children[0]) if children else pid
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.partition("VmHWM:")[2].split(None, 1)[0]) * 1024

    # ── The end ──

    def close(self) -> list[str]:
        """What was wrong. Junk has to be there still; then it is cleared away, and the usual judge looks."""
        self.settles("at the end")
        self.found += [f"{path.name!r} was taken away" for path in self.junk if not os.path.lexists(path)]
        for path in self.junk:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        stolen = self.secrets & self.known().keys()
        self.found += [f"{len(stolen)} secrets from outside the spool are in the journal"] if stolen else []
        self.daemon.stop()
        self.found += judge(self.place, self.drops)
        self.found += self.daemon.complaints
        if "Traceback" in self.daemon.log.read_text("utf-8", "replace"):
            self.found.append("a traceback")
        return self.found

    def kill(self) -> None:
        if self.daemon.process is not None and self.daemon.process.poll() is None:
            self.daemon.process.kill()
            self.daemon.process.wait()


@contextlib.contextmanager
def yard(root: Path, seed: object, plant: str = "", before: list[str] | None = None) -> Iterator[Yard]:
    """An open yard; its program is gone at the end."""
    opened = Yard(root, seed, plant)
    try:
        opened.open(before)
        yield opened
    finally:
        opened.kill()
