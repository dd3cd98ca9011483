"""
Bugs to plant, each a few lines over the real program: a campaign that doesn't find them is worth nothing.

    python tests/planted.py BUG[,BUG] journal|forwarder ARGUMENTS…    runs that program with bugs in it

Each names the judge's check that has to find it: one that is found only by something else is not found.
"""

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


# Bugs of a bad line, which only the line means looks for.


def unbounded() -> None:
    """A time-out for each read, none for the whole of a request."""
    from forwarder.wire import Deadline

    Deadline.or_raise = lambda *_: 1.0


def glutton() -> None:
    """Reads as much of an answer as comes."""
    from forwarder import wire

    wire.ANSWER_BYTES = 2**60


def unpacks() -> None:
    """Decodes what is encoded, however large it gets."""
    from forwarder import wire

    wire._undecoded = lambda headers: headers


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
BUGS = {bug.__name__: check for bug, check in FOUND_BY.items()}
ELSEWHERE = (unbounded, glutton, unpacks, trusting)
CHANGES = {change.__name__: change for change in (*FOUND_BY, hurry, watched, *ELSEWHERE)}


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
