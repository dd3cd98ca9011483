"""
The way of a sale from the journal to Omneo, told once: `step()` from top to bottom.

Nothing is resent blindly: what may have reached Omneo (a lost answer, a crash in between) is looked up first. Starting
up is the first step: whatever a power cut interrupted is simply not settled yet.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from forwarder import omneo, outcome
from forwarder.books import TURN, Books, Document
from forwarder.lane import Strict
from forwarder.line import Line
from forwarder.link import Link
from forwarder.outcome import Answer, Outcome
from journal.document import local_time
from journal.log import Clock, Entry, utc_now
from journal.say import Say

CLOCK_SKEW = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator chose (contract, section 1)."""

    system: str = "POS"
    poison_after: int = 10
    poison_for_s: float = 900.0


@dataclass(slots=True)
class Replay:
    """One run of the forwarder: both books, the link, and what is only known while it runs."""

    books: Books
    link: Link
    policy: Policy
    say: Say
    now: Clock = utc_now
    lane: Strict = field(init=False)
    line: Line = field(init=False)
    doubt: set[int] = field(default_factory=set)  # documents that may have reached Omneo: looked up before a resend
    first_sent: dict[int, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the position and the state of the line in the delivery book."""
        self.lane = Strict(self.books)
        self.line = Line(self.books, self.say)


def step(run: Replay) -> Outcome | None:
    """Take the document whose turn it is to Omneo, once. None when nothing waits."""
    document = run.lane.next_ready()
    if document is None:
        return None
    may_leave(run, document)
    result = deliver(run, document)
    result = poisoned(run, document, result)
    record(run, document, result)
    return result


def may_leave(run: Replay, document: Document) -> None:
    """
    Before any byte of a document leaves, it is on disk that it may have. One commit covers a turn of them.

    Where all of an old journal may have left already, a turn comes as often all the same: it keeps the position.
    """
    turn = run.books.turn
    if document.seq > turn.upto:
        run.books.take_turn(run.lane.settled_upto, document.seq + TURN)
    elif run.lane.settled_upto >= turn.settled + 2 * TURN:
        run.books.take_turn(run.lane.settled_upto, turn.upto)


def deliver(run: Replay, document: Document) -> Outcome:
    """What Omneo makes of one document."""
    if document.kind != "sale":
        return Outcome("held", "redemptions are not forwarded by this version")
    return deliver_sale(run, document)


def deliver_sale(run: Replay, document: Document) -> Outcome:
    """Look up what may be there already; else upsert, and believe only an answer that names our sale."""
    known_since = document.received_at if document.seq <= run.books.unknown_upto else run.now()
    first_sent = run.first_sent.setdefault(document.seq, known_since)
    if document.seq in run.doubt or document.seq <= run.books.unknown_upto:
        found = look_up(run, document, first_sent)
        if found is not None:
            return found
    sent = run.now()
    answer = run.link.ask(omneo.sale(document.content, run.policy.system))
    match outcome.meaning(answer):
        case "yes" if omneo.echoes(answer.data, document.external_id):
            conflict = omneo.older_than(answer.data, answer, first_sent, sent)
            return delivered(
                run, document, answer, answer.data, {"replaced": "an older transaction"} if conflict else {}
            )
        case "no":
            return refused(run, document, answer, first_sent)
        case "missing" if omneo.profile_of(document.content):
            return missing(run, document, answer, first_sent)
        case _:
            return outcome.otherwise(answer)


def look_up(run: Replay, document: Document, first_sent: datetime) -> Outcome | None:
    """Does Omneo have this sale? An outcome if it has, or if it can't be asked now; None if it provably hasn't."""
    sent = run.now()
    answer = run.link.ask(omneo.find_sale(document.external_id))
    row = omneo.found_sale(answer, document.external_id)
    if row is not None:
        why = {}
        if omneo.differs(row, document.content):
            why = {"total_there": str(row.get("total")), "total_here": str(document.content["total"])}
        elif omneo.older_than(row, answer, first_sent, sent):
            why = {"replaced": "nothing: it was there before, with the same total"}
        return delivered(run, document, answer, row, why, found=True)
    if outcome.meaning(answer) == "missing" or (
        outcome.meaning(answer) == "yes" and not answer.rows and not answer.data
    ):
        run.doubt.discard(document.seq)
        return None
    later = outcome.otherwise(answer)
    return Outcome(later.kind, later.reason, look_up=True, status=later.status, retry_after_s=later.retry_after_s)


def delivered(
    run: Replay,
    document: Document,
    answer: Answer,
    row: dict[str, Any],
    conflict: dict[str, str],
    *,
    found: bool = False,
) -> Outcome:
    """Omneo has it; its id is known."""
    flags = [("conflict", conflict)] if conflict else []
    flags += clock_flags(run, document, answer)
    facts = {"omneo_id": omneo.id_of(row)} | ({"found": True} if found else {})
    return Outcome("delivered", facts=facts, flags=tuple(flags), status=answer.status)


def refused(run: Replay, document: Document, answer: Answer, first_sent: datetime) -> Outcome:
    """A no to this document, for good, once a look-up has shown that Omneo doesn't have it all the same."""
    found = look_up(run, document, first_sent)
    if found is not None:
        return found
    facts = {"status": answer.status, "words": omneo.words(answer, document.content)}
    return Outcome("refused", answer.reason, facts=facts, flags=(("sale_refused", facts),), status=answer.status)


def missing(run: Replay, document: Document, answer: Answer, first_sent: datetime) -> Outcome:
    """A 404 to a sale: about its customer if Omneo doesn't know that profile but knows us, else our configuration."""
    profile = omneo.profile_of(document.content)
    assert profile is not None
    asked = run.link.ask(omneo.read_profile(*profile))
    gone = outcome.meaning(asked) == "missing" or (
        outcome.meaning(asked) == "yes" and not asked.data and not asked.rows
    )
    if gone and outcome.meaning(run.link.ask(omneo.verify_token())) == "yes":
        return refused(run, document, answer, first_sent)
    return outcome.otherwise(answer)


def poisoned(run: Replay, document: Document, result: Outcome) -> Outcome:
    """A document that keeps failing with 5xx while Omneo otherwise answers holds up nobody any longer."""
    if result.kind != "deferred" or result.status is None or result.status < 500:
        return result
    failures = run.books.failures(document.seq)
    if len(failures) < run.policy.poison_after:
        run.books.record(Entry("deferred", document.seq, document.external_id, {"status": result.status}))
        run.books.flush()
        failures.append(run.now().isoformat())
    since = run.now() - datetime.fromisoformat(failures[0])
    if len(failures) < run.policy.poison_after or since.total_seconds() < run.policy.poison_for_s:
        return result
    if outcome.meaning(run.link.ask(omneo.verify_token())) != "yes":
        return result
    found = look_up(run, document, run.first_sent[document.seq]) if document.kind == "sale" else None
    if found is not None:  # the last failure may have done its work
        return found
    facts = {"status": result.status, "failures": len(failures)}
    return Outcome("held", "it keeps failing while Omneo otherwise answers", facts=facts, flags=(("poison", facts),))


def record(run: Replay, document: Document, result: Outcome) -> None:
    """Write down what happened. Many documents share one commit; whatever waits, waits for that first."""
    run.line.saw(result)
    if not result.settles:
        if result.look_up:
            run.doubt.add(document.seq)
        run.books.flush()
        return
    facts = result.facts | ({"reason": result.reason} if result.reason else {})
    run.books.record(Entry(result.kind, document.seq, document.external_id, facts))
    for name, detail in result.flags:
        run.books.record(Entry("flag", document.seq, document.external_id, {"flag": name, **detail}))
        run.say("flagged", flag=name, seq=document.seq)
    run.lane.settle(document)
    run.doubt.discard(document.seq)
    run.first_sent.pop(document.seq, None)
    if result.kind != "delivered":
        run.say("settled", seq=document.seq, state=result.kind, reason=result.reason, status=result.status)
    if run.books.flush_due or run.link.slow:
        run.books.flush()  # Settled, on disk.


def clock_flags(run: Replay, document: Document, answer: Answer) -> list[tuple[str, dict[str, Any]]]:
    """Is this machine's clock, or the till's, more than two minutes from Omneo's?"""
    if answer.date is None:
        return []
    ours = run.now() - answer.date
    if abs(ours) > CLOCK_SKEW:
        if run.line.clock_told:
            return []
        run.line.clock_told = True
        return [("clock_skew", {"whose": "this machine", "seconds": round(ours.total_seconds())})]
    run.line.clock_told = False
    till = local_time(document.content["transacted_at"], document.content["timezone"]) - document.received_at
    if till > CLOCK_SKEW:  # behind can't be told from late
        return [("clock_skew", {"whose": "the till", "seconds": round(till.total_seconds())})]
    return []
