"""
What has to be known before a document may go: the redemption it names, its pair, its window, what may be there already.

`prepare` reads the books and decides; it sends nothing. Either the document is settled or has to wait as things stand
(an Outcome), or it may go (an Errand), or another document has to go before it (that one's Errand or Outcome).
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast, get_args

from forwarder import known, window
from forwarder.books import Books, Document
from forwarder.known import Redeemed
from forwarder.outcome import Outcome, Settled
from forwarder.window import Instant, Omneo
from journal.document import local_time

SLACK_S = 2.0  # between the verdict and the first byte: pacing, a slow box


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator chose (contract, section 1)."""

    system: str = "POS"
    poison_after: int = 10
    poison_for_s: float = 900.0
    window_s: float = 600.0
    timeout_s: float = 15.0
    grace_s: float = 60.0
    late_redemption: str = "send"
    late_reversal: str = "flag"
    routes: str = "reference"
    witness: bool = True

    @property
    def reserve_s(self) -> float:
        """What a reversal needs of the window, at the most, to arrive."""
        return self.timeout_s + SLACK_S


@dataclass(frozen=True, slots=True)
class Errand:
    """One document on its way, with all that the conversation with Omneo needs. Nothing in it changes."""

    document: Document
    since: datetime  # what was at Omneo before this can't be ours …
    set_back_s: float  # … but the wall clock may have been set back by so much since then
    look_first: bool  # something of it may have reached Omneo
    intent: bool = False  # a resend could do harm: the attempt is on disk before it leaves
    redeemed: Redeemed | None = None  # the redemption to link, to reverse or to return
    as_return: bool = False  # a reversal that comes too late, refunded
    left: Instant | None = None  # just before its first attempt
    ours: frozenset[str] = frozenset()  # what is known to be another document's at Omneo
    unwanted: bool = False  # a reversal waits: not to be sent again
    by_hand: bool = False  # a person released it
    again: bool = False  # Omneo had it once, and a person has it sent again
    within_s: float | None = None  # a reversal: how soon its first byte has to leave after the verdict
    flags: tuple[tuple[str, dict[str, Any]], ...] = ()  # raised when it is settled


@dataclass(slots=True)
class Memory:
    """What is only known while the program runs. Losing it costs look-ups and waits, nothing else."""

    doubt: set[int] = field(default_factory=set)  # may have reached Omneo in this run
    unsent: set[int] = field(default_factory=set)  # attempted in this run, and provably nothing of it left
    first_sent: dict[int, tuple[datetime, Instant | None]] = field(default_factory=dict)
    turn_came: dict[int, float] = field(default_factory=dict)  # documents waiting for a redemption (since boot)
    absent_since: dict[int, float] = field(default_factory=dict)  # doubtful, and not seen at Omneo since (since boot)

    def forget(self, seq: int) -> None:
        """A document is settled."""
        self.doubt.discard(seq)
        self.unsent.discard(seq)
        for moments in (self.first_sent, self.turn_came, self.absent_since):
            moments.pop(seq, None)


@dataclass(frozen=True, slots=True)
class Pair:
    """A redemption and its reversals that met here; none of them was ever sent."""

    documents: tuple[Document, ...]


Prepared = Errand | Outcome | Pair


@dataclass(frozen=True, slots=True)
class View:
    """All that a decision is made from."""

    books: Books
    memory: Memory
    policy: Policy
    now: Instant
    omneo: Omneo | None  # Omneo's clock, if it was seen in this run


def prepare(document: Document, view: View) -> tuple[Document, Prepared]:
    """The document that goes next on behalf of this one (itself, or what it depends on), and what is to be done."""
    if document.gone:
        return document, _gone(document, view)
    match document.kind:
        case "sale":
            return _sale(document, view)
        case "redemption":
            return document, _redemption(document, view)
        case _:
            return _undoing(document, view)


def _gone(document: Document, view: View) -> Outcome:
    """
    Its body was redacted before it was settled: there is nothing to send. If it may have left, a person has to look.

    One that was archived was settled, as an earlier delivery book, now lost, said; the journal has kept what it said.
    """
    if (archived := known.archived(view.books, document.seq)) is not None:
        state, omneo_id = archived
        facts = {} if omneo_id is None else {"omneo_id": omneo_id}
        kind = cast("Settled", state) if state in get_args(Settled) else "cancelled"
        return Outcome(kind, "it was settled when its bytes were archived", facts=facts)
    if _may_have_left(document, view) or document.seq <= view.books.unknown_upto:
        return Outcome("held", "its bytes were redacted, and it may have reached Omneo")
    return Outcome("cancelled", "its bytes were redacted before it was sent")


def _errand(document: Document, view: View, *, intent: bool = False, **more: Any) -> Errand:
    """Look first after a lost answer, and for whatever may have left before this process started."""
    books, seq = view.books, document.seq
    if intent:
        look_first = _may_have_left(document, view) or books.lost(document)
    else:
        look_first = seq in view.memory.doubt or seq <= books.unknown_upto or seq in books.again
    if (first := view.memory.first_sent.get(seq)) is None:
        first = (document.received_at, known.clocks(books, seq)) if look_first else (view.now.wall, view.now)
        view.memory.first_sent[seq] = first
    since, clocks = first
    set_back_s = clocks.set_back_s(view.now) if clocks is not None else 0.0
    if intent and look_first:
        more["left"] = known.left(books, document)
    return Errand(document, since, set_back_s, look_first, intent, again=seq in books.again, **more)


def _may_have_left(document: Document, view: View) -> bool:
    """May a byte of it have reached Omneo, as far as this book and this run know?"""
    if document.seq in view.memory.doubt:
        return True
    return document.seq not in view.memory.unsent and view.books.attempted(document.seq)


def _sale(document: Document, view: View) -> tuple[Document, Prepared]:
    books = view.books
    name = known.named_by(document)
    if name is None:
        return document, _errand(document, view)
    redemption, state = known.redemption(books, name)
    if state == "waiting" and redemption is not None:
        first, prepared = prepare(redemption, view)
        if not isinstance(prepared, Outcome) or prepared.kind != "waits":
            return first, prepared
    missing = _missing(document, name, view)
    if isinstance(missing, Outcome):
        return document, missing
    if missing is not None:
        return document, _errand(document, view, flags=(("redemption_missing", {"why": missing}),))
    return document, _errand(document, view, redeemed=known.redeemed(books, name))


def _missing(document: Document, name: str, view: View) -> str | Outcome | None:
    """Why the redemption that a sale or return names can't be used; None if it can; an Outcome while it may come."""
    _, state = known.redemption(view.books, name)
    if state == "never came":
        now_s = view.now.since_boot_s
        waited = now_s - view.memory.turn_came.setdefault(document.seq, now_s)
        if waited < view.policy.grace_s:
            return Outcome("waits", "the redemption it names has not come", retry_after_s=view.policy.grace_s - waited)
        return "it never came"
    if state not in {"delivered", "online"}:
        return f"it was {state}"
    if known.reversing(view.books, name):
        return "it was reversed, or its reversal waits"
    return None


def _redemption(document: Document, view: View) -> Prepared:
    books = view.books
    reversals = known.naming(books, f"external:{document.external_id}", "reversal")
    waiting = tuple(reversal for reversal, state in reversals if state == "waiting")
    if not _may_have_left(document, view) and not books.lost(document):
        if any(state == "cancelled" for _, state in reversals):
            return Outcome("cancelled", "its reversal was cancelled with it")
        if waiting:
            return Pair((document, *waiting))
        late = _late(document, view)
        if (
            late.judged != "in"
            and view.policy.late_redemption == "hold"
            and not known.released_by_hand(books, document.seq)
        ):
            flag = ("reversal_window_exceeded", {"verdict": late.judged, **late.inputs})
            return Outcome("held", "it is older than the reversal window", flags=(flag,))
    errand = _errand(document, view, intent=True, unwanted=bool(waiting))
    return replace(errand, ours=known.redeemed_by_others(books, document.seq)) if errand.look_first else errand


def _late(document: Document, view: View) -> window.Verdict:
    issued = local_time(document.content["issued_at"], document.content["timezone"])
    return window.lateness(issued, document.received_at, view.now.wall, view.policy.window_s)


def _undoing(document: Document, view: View) -> tuple[Document, Prepared]:
    """A reversal or a return: whatever became of its redemption decides."""
    books = view.books
    name = known.named_by(document)
    assert name is not None
    redemption, state = known.redemption(books, name)
    if state == "waiting" and redemption is not None:
        return prepare(redemption, view)
    if state == "doubtful":
        return document, Outcome("held", "its redemption is doubtful", facts={"until": name})
    if document.kind == "reversal" and state in {"cancelled", "refused", "abandoned", "held"}:
        return document, Outcome("cancelled", f"its redemption was {state}: there is nothing to undo")
    missing = None if document.kind == "reversal" and state == "online" else _missing(document, name, view)
    if document.kind == "reversal" and state == "delivered":
        missing = None
    if isinstance(missing, Outcome):
        return document, missing
    if missing is not None:
        flag = ("redemption_missing", {"why": missing})
        return document, Outcome("held", f"the redemption it names can't be used: {missing}", flags=(flag,))
    errand = _errand(
        document,
        view,
        intent=True,
        redeemed=known.redeemed(books, name, document),
        by_hand=known.released_by_hand(books, document.seq),
        ours=known.returned(books, name),
    )
    if document.kind == "return" or errand.look_first:
        return document, errand
    return document, in_time(errand, view.policy, view.now, view.omneo)


def in_time(errand: Errand, policy: Policy, now: Instant, omneo: Omneo | None) -> Errand | Outcome:
    """
    A reversal goes only if it can still arrive in time; else it is held, or refunded if somebody chose so.

    Asked twice: here, so that what is too late anyway is never marked as having left, and right before it leaves.
    """
    assert errand.redeemed is not None
    verdict = window.reversal(errand.redeemed.made, now, omneo, policy.window_s, policy.reserve_s)
    if verdict.judged == "in":
        return replace(errand, within_s=verdict.spare_s + SLACK_S)
    if omneo is None and verdict.judged == "cannot tell":
        return errand  # without Omneo's clock the conversation asks for it first, and judges again
    return too_late(errand, policy, verdict)


def too_late(errand: Errand, policy: Policy, verdict: window.Verdict) -> Errand | Outcome:
    """Never a hopeful reversal: a flag, and a refund where the operator or a person chose one."""
    flag = ("reversal_too_late", {"verdict": verdict.judged, **verdict.inputs})
    if policy.late_reversal == "return" or errand.by_hand:
        return replace(errand, as_return=True, flags=(flag,))
    return Outcome("held", "it can't be reversed in time any more", flags=(flag,))
