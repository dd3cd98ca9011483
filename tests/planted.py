"""
Bugs to plant, each a few lines over the real program: a campaign that doesn't find them is worth nothing.

    python tests/planted.py BUG[,BUG] journal|forwarder ARGUMENTS…    runs that program with bugs in it

Each names the judge's check that has to find it: one that is found only by something else is not found.
"""

import contextlib
import sqlite3
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


def blind() -> None:
    """Never asks before a resend, and creates instead of upserting."""
    from forwarder import omneo, replay

    upsert = omneo.sale

    def create(*arguments: Any) -> Any:
        method, _, body = upsert(*arguments)
        return method, "/transactions", body

    omneo.sale = create
    replay.look_up = lambda *_: None


def gullible() -> None:
    """Takes any 2xx for a delivery."""
    from forwarder import omneo, outcome

    meaning = outcome.meaning
    outcome.meaning = lambda answer: "yes" if answer.status in range(200, 300) else meaning(answer)
    omneo.echoes = lambda *_: True
    omneo.id_of = lambda row: row.get("id", 0)


def hasty() -> None:
    """Removes good files from the spool before they are in the log."""
    from journal import document
    from journal.spool import Spool

    batches = Spool.batches

    def removed(self: Any, *arguments: Any) -> Any:
        for batch in batches(self, *arguments):
            for contents in batch:
                if contents.body and document.read(contents.file.name, contents.body).kind != "invalid":
                    (self.root / contents.file.path).unlink(missing_ok=True)
            time.sleep(0.02)  # a slow disk
            yield batch

    Spool.batches = removed


def floats() -> None:
    """Lets money pass through binary floating point."""
    import json

    from forwarder import omneo

    omneo._encode = lambda value: json.dumps(value, default=float).encode()


def impatient() -> None:
    """What fails for now goes to the end of the queue instead of holding the line."""
    from forwarder import patience, replay

    def step(run: Any) -> Any:
        result = replay.step(run)
        if result is not None and not result.settles:
            run.lane._ahead.rotate(-1)
        return result

    patience.step = step


def forgetful() -> None:
    """Does not ask after a restart: only the upsert keeps that from making second rows."""
    from forwarder.books import Books

    begun = Books.__init__

    def forgets(self: Any, *arguments: Any, **named: Any) -> None:
        begun(self, *arguments, **named)
        self.unknown_upto = 0

    Books.__init__ = forgets


def silent() -> None:
    """Sets bad files aside without a word about why."""
    from journal import rejected

    write_words = rejected.write_words

    def mute(*arguments: Any) -> Any:
        target, words = write_words(*arguments)
        words.write_text("{}")
        return target, words

    rejected.write_words = mute


def untidy() -> None:
    """Leaves a draft behind with each file that it sets aside."""
    from journal import rejected

    write_words = rejected.write_words

    def leaves(*arguments: Any) -> Any:
        target, words = write_words(*arguments)
        words.with_name(f".{words.stem}.tmp").touch()
        return target, words

    rejected.write_words = leaves


def discreet() -> None:
    """Tells nobody that an external_id came again with other content."""
    from journal import check

    flag = check.flag
    check.flag = lambda name, entry, **detail: flag("hidden" if name == "conflict" else name, entry, **detail)


def unlinked() -> None:
    """Now and then links an entry to something else than the one before it."""
    from journal import chain, log

    def link(before: bytes, row: Any) -> bytes:
        return chain.link(bytes(32) if row.seq % 20 == 0 else before, row)

    log.chain = SimpleNamespace(**vars(chain) | {"link": link})


def soft() -> None:
    """Leaves what Omneo refused to a person."""
    from forwarder import outcome, replay

    replay.refused = lambda *_: outcome.Outcome("held", "Omneo said no")


def early() -> None:
    """Lets files go before their commit."""
    from journal import ingest

    enter = ingest.enter

    def gone_first(due: Any, db: Any, now: Any) -> Any:
        for contents, found in due:
            if found.kind != "invalid":
                (spools[-1].root / contents.file.path).unlink()
        return enter(due, db, now)

    spools = _spools()
    ingest.enter = gone_first


def _spools() -> list[Any]:
    """Every spool that the program opens from now on."""
    from journal.spool import Spool

    opened: list[Any] = []
    begun = Spool.__init__

    def remembers(self: Any, *arguments: Any) -> None:
        begun(self, *arguments)
        opened.append(self)

    Spool.__init__ = remembers
    return opened


def careless() -> None:
    """Commits with synchronous=NORMAL, as most guides advise."""
    _also_sets("synchronous = NORMAL")


def reckless() -> None:
    """Never syncs a commit."""
    _also_sets("synchronous = OFF")


def walled() -> None:
    """WAL with synchronous=NORMAL, as most guides advise."""
    _also_sets("journal_mode = WAL", "synchronous = NORMAL")


def _also_sets(*pragmas: str) -> None:
    from journal import book, log

    set_up = book.set_up

    def differently(db: Any) -> None:
        set_up(db)
        for pragma in pragmas:
            db.execute(f"PRAGMA {pragma}")

    book.set_up = log.set_up = differently


def unsure() -> None:
    """Never makes a directory's entries durable."""
    from journal import log

    log.sync_directory = lambda _: None


def untold() -> None:
    """Lets documents leave before it has written down that they may have."""
    from forwarder.books import Books

    take_turn, flush = Books.take_turn, Books.flush

    def later(self: Any, settled: int, upto: int) -> None:
        self.turn.upto, self.turn.settled = upto, settled
        self.unknown_turn = (settled, upto)

    def turns(self: Any) -> None:
        waits = [entry for entry in self._pending if entry.kind == "attempt"]
        if waits and len(waits) == len(self._pending):
            return
        if (turn := self.__dict__.pop("unknown_turn", None)) is not None:
            take_turn(self, *turn)
        flush(self)

    Books.take_turn, Books.flush = later, turns


def unopened() -> None:
    """Looks at the spool before it has put anything on disk."""
    from journal import book, ingest

    ingest.opened = lambda *_, **__: None
    book._sync_name = lambda _: None


def rash() -> None:
    """Sets a file aside that can't be read."""
    from journal.spool import Contents, Spool

    reads = Spool._read

    def reads_or_gives_up(self: Any, file: Any) -> Any:
        try:
            return reads(self, file)
        except OSError:
            return Contents(file, b"{}")

    Spool._read = reads_or_gives_up


def shrugging() -> None:
    """Goes on when a commit failed."""
    from journal import ingest

    class Whatever:
        """Does what the log does, and looks away."""

        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

        @contextlib.contextmanager
        def writing(self, db: Any) -> Any:
            with contextlib.suppress(log.NotNow, sqlite3.DatabaseError), log.writing(db):
                yield

    from journal import log

    ingest.log = Whatever()


def batches() -> None:
    """No bug: commits a few files at a time, so that a short run has many commits."""
    from journal import spool

    spool.BATCH_FILES = 3


def hurry() -> None:
    """No bug: waits a tenth as long after a failure, so that a short campaign sees as many failures."""
    from forwarder import patience

    back_off = patience.back_off
    patience.back_off = lambda state: back_off(state) / 10


def watched() -> None:
    """No bug: writes down how long the longest request took, in the file that FAULTS_WATCH names."""
    import os
    from pathlib import Path

    from forwarder.wire import Wire

    send, longest, file = Wire.handle_request, 0.0, Path(os.environ["FAULTS_WATCH"])

    def timed(self: Any, request: Any) -> Any:
        nonlocal longest
        began = time.monotonic()
        try:
            return send(self, request)
        finally:
            took = time.monotonic() - began
            if took > longest:
                longest = took
                file.write_text(f"{took:.3f}")

    Wire.handle_request = timed


def naps() -> None:
    """No bug: libfaketime breaks `time.sleep`, which waits in another way now."""
    import threading

    time.sleep = lambda seconds: threading.Event().wait(max(0.0, seconds))


# Bugs of a bad line, which only the line means looks for.


def unbounded() -> None:
    """A time-out for each read, none for the whole of a request."""
    from forwarder import wire

    wire._left = lambda *_: 1.0


def glutton() -> None:
    """Reads as much of an answer as comes."""
    from forwarder import wire

    wire.ANSWER_BYTES = 2**30


def unpacks() -> None:
    """Decodes what is encoded, however large it gets."""
    from forwarder import wire

    wire._undecoded = lambda headers: [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def trusting() -> None:
    """Any certificate will do."""
    import ssl

    from forwarder import wire

    wire.ssl = SimpleNamespace(create_default_context=ssl._create_unverified_context)


FOUND_BY: dict[Callable[[], None], str] = {
    blind: "asked before a resend",
    gullible: "each sale once",
    hasty: "each sale once",
    floats: "numbers exact",
    impatient: "journal order",
    forgetful: "asked before a resend",
    silent: "evidence",
    untidy: "nothing left over",
    discreet: "flags",
    unlinked: "verify",
    soft: "refusals",
}
# What only a hostile or an enormous spool shows.


def follower() -> None:
    """Follows a link that stands where a file stood when it was looked for."""
    import os

    os.O_NOFOLLOW = 0


def stern() -> None:
    """What can't be read is set aside."""
    from journal.spool import Contents, Spool

    read = Spool._read

    def condemned(self: Any, file: Any) -> Any:
        try:
            return read(self, file)
        except PermissionError:
            return Contents(file, b'"can\'t be read"')

    Spool._read = condemned


def hasty_hand() -> None:
    """Removes whatever stands under the name of a file that the log has."""
    from journal.spool import Spool

    def removed(self: Any, file: Any) -> bool:
        (self.root / file.path).unlink(missing_ok=True)
        return True

    Spool.retire = removed


def eventful() -> None:
    """Looks into the spool only when a file event says so."""
    from journal import ingest

    ingest.RESCAN_S = 1e6


def hoarder() -> None:
    """Reads everything that waits before it takes any of it."""
    from journal import spool

    spool.BATCH_FILES = spool.BATCH_BYTES = 2**60


# What only a wrong clock shows.


def wallclock() -> None:
    """Judges a reversal's window by the box's wall clock."""
    from forwarder import window

    window.Instant.until_s = lambda at, later: (later.wall - at.wall).total_seconds()
    window._by_omneo = lambda *_: None


def awake() -> None:
    """Counts time by a clock that stands still while the box sleeps."""
    time.clock_gettime = lambda _: time.monotonic()


# What only time shows.


def leaky() -> None:
    """Keeps a descriptor of each look into the spool."""
    import os

    from journal.spool import Spool

    ready, held = Spool.ready, []

    def kept(self: Any) -> Any:
        held.append(os.open(self.root, os.O_RDONLY))
        return ready(self)

    Spool.ready = kept


def bloated() -> None:
    """Keeps what it has forwarded in memory."""
    from forwarder import omneo

    encode, held = omneo._encode, []

    def kept(value: Any) -> Any:
        held.append(bytearray(b"x" * 500_000))
        return encode(value)

    omneo._encode = kept


# What costs something only where the disk or the power fails: tests/faults says which of its means has to find it.
FAULTS = (early, careless, reckless, walled, unsure, untold, rash, shrugging, unopened)
BUGS = {bug.__name__: check for bug, check in FOUND_BY.items()}
# What only a bad line, a bad spool, a wrong clock or a long time shows.
LINE = (unbounded, glutton, unpacks, trusting)
CLOCK = (wallclock, awake)
TIME = (leaky, bloated)
SPOOL = (follower, stern, hasty_hand, eventful, hoarder)
CHANGES = {
    change.__name__: change
    for change in (*FOUND_BY, *FAULTS, *LINE, *SPOOL, *CLOCK, *TIME, batches, hurry, naps, watched)
}


def main() -> None:
    """The program, with the bugs."""
    names, program = sys.argv[1:3]
    sys.argv[:3] = [program]
    for name in names.split(","):
        CHANGES[name]()
    if program == "journal":
        from journal.cli import main as run
    else:
        from forwarder.cli import main as run
    run()


if __name__ == "__main__":
    main()
