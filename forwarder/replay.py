"""
The way of a sale from the journal to Omneo, told once: `step()` from top to bottom.

Nothing is resent blindly: what may have reached Omneo is looked up first. That is a document whose answer was lost,
and after a start everything up to where the last turn let documents leave. Starting up is the first step: whatever a
power cut interrupted is simply not settled yet.

`side_by_side` does the same with many at a time: only `converse` runs in other threads.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from forwarder import known, omneo, outcome, redeem
from forwarder.apportion import proportional
from forwarder.books import TURN, Books, Document
from forwarder.by_customer import ByCustomer
from forwarder.chores import Chores
from forwarder.errand import Errand, Memory, Pair, Policy, View, prepare
from forwarder.lane import Strict
from forwarder.line import Line
from forwarder.link import Link
from forwarder.lookup import Talk
from forwarder.outcome import Answer, Outcome
from journal.log import Clock, Entry, utc_now
from journal.notify import Pulse
from journal.say import Say

__all__ = ["Policy", "Replay", "step"]


@dataclass(slots=True)
class Replay:
    """One run of the forwarder: both books, the link, and what is only known while it runs."""

    books: Books
    link: Link
    policy: Policy
    say: Say
    now: Clock = utc_now
    memory: Memory = field(default_factory=Memory)
    pulse: Pulse = field(default_factory=Pulse)
    lanes: int = 0  # 0: strict, one at a time; else so many side by side, in order for each customer
    lane: Strict | ByCustomer = field(init=False)
    line: Line = field(init=False)
    chores: Chores = field(init=False)

    def __post_init__(self) -> None:
        """Find the position and the state of the line in the delivery book."""
        self.lane = ByCustomer(self.books, self.policy.window_s) if self.lanes else Strict(self.books)
        self.line = Line(self.books, self.say)
        self.chores = Chores(self.books)

    @property
    def view(self) -> View:
        """What a decision is made from."""
        return View(self.books, self.memory, self.policy, self.link.instant(), self.link.omneo_clock)

    @property
    def talk(self) -> Talk:
        """What a conversation with Omneo needs of this run."""
        return Talk(self.link, self.policy, self.memory, self.now, self.books.identity)

    def meanwhile(self) -> None:
        """What was settled goes on disk while the next request is under way, if that takes longer than a commit."""
        if self.link.slow and not self.lanes:
            self.link.meanwhile(self.books.flush)


def step(run: Replay) -> Outcome | None:
    """Take the document whose turn it is to Omneo, once. None when nothing waits."""
    due = run.lane.next_ready()
    if due is None:
        return None
    document, ready = prepare(due, run.view)  # the one whose turn it is, or what has to go before it
    if isinstance(ready, Pair):
        return cancel(run, ready)
    if isinstance(ready, Errand):
        result = probe(run, ready)
        if result is None:
            may_leave(run, ready)
            result = converse(run.talk, ready)
            result = poisoned(run, ready, result)
        if ready.look_first and not result.settles:
            result = replace(result, look_up=True)  # in doubt before, in doubt still
    else:
        result = ready
    record(run, document, result)
    return result


def probe(run: Replay, errand: Errand) -> Outcome | None:
    """
    While the line is failing, ask something harmless before anything leaves that could do harm: a redemption that
    waits for the line has then provably not left, and can still be cancelled with its reversal.
    """
    if not errand.intent or errand.look_first or not run.line.failing:
        return None
    answer = run.link.ask(omneo.verify_token())
    return None if outcome.meaning(answer) == "yes" else replace(outcome.otherwise(answer), look_up=False)


def may_leave(run: Replay, errand: Errand) -> None:
    """
    Before any byte of a document leaves, it is on disk that it may have.

    Of sales, which Omneo upserts, one commit says so for a whole turn of them; a redemption, reversal or return, which
    Omneo would do twice, has an entry of its own, with the clocks that its window is judged by: its first attempt is
    the earliest that Omneo can have had it.
    """
    document, turn = errand.document, run.books.turn
    if document.seq > turn.upto:
        run.books.take_turn(run.lane.settled_upto, document.seq + TURN)
    elif run.lane.settled_upto >= turn.settled + 2 * TURN:  # nothing new to let leave, but a position to keep
        run.books.take_turn(run.lane.settled_upto, turn.upto)
    if errand.intent and not run.books.attempted(document.seq):
        now = run.link.instant()
        facts = {"boot": now.boot, "since_boot_s": now.since_boot_s}
        run.books.record(Entry("attempt", document.seq, document.external_id, facts))
        run.books.flush()
    run.memory.doubt.add(document.seq)  # until an answer is written down, whatever comes in between


def converse(talk: Talk, errand: Errand) -> Outcome:
    """What Omneo makes of one document. Only the network is touched here: lanes do this side by side."""
    match errand.document.kind:
        case "sale":
            return sale(talk, errand)
        case "redemption":
            return redeem.redemption(talk, errand)
        case "reversal":
            return redeem.reversal(talk, errand)
        case _:
            return redeem.give_back(talk, errand)


def sale(talk: Talk, errand: Errand) -> Outcome:
    """
    Look up what may be there already; else upsert, and believe only an answer that names our sale.

    An upsert would do no harm to our own sale; the look-up is for what somebody else may have written over it since.
    """
    document = errand.document
    if errand.look_first:
        found = look_up(talk, errand)
        if found is not None:
            return found
    content = with_net_lines(talk, errand)
    if isinstance(content, Outcome):
        return content
    sent = talk.now()
    linked = errand.redeemed.omneo_id if errand.redeemed else None
    answer = talk.link.ask(omneo.sale(content, talk.policy.system, linked, talk.witness(document)))
    match outcome.meaning(answer):
        case "yes" if omneo.echoes(answer.data, document.external_id):
            older = omneo.older_than(answer.data, answer, errand.since, sent, errand.set_back_s)
            return delivered(errand, answer, answer.data, {"replaced": "an older transaction"} if older else {})
        case "no":
            return refused(talk, errand, answer)
        case "missing" if document.content.get("profile_id") is not None:
            return missing(talk, errand, answer)
    return outcome.otherwise(answer)


def with_net_lines(talk: Talk, errand: Errand) -> dict[str, Any] | Outcome:
    """The sale as it goes out: lines net of their share of its redemption, if the till asked for that."""
    content = errand.document.content
    if errand.redeemed is None:  # it may name one that was reversed since
        return {name: value for name, value in content.items() if name != "redemption_id"}
    if content.get("apply_redemption") != "proportional":
        return content
    amount = errand.redeemed.total
    if amount is None:
        answer = talk.link.ask(omneo.read_redemption(errand.redeemed.omneo_id))
        if outcome.meaning(answer) != "missing" and not omneo.is_redemption(answer, errand.redeemed.omneo_id):
            return replace(outcome.otherwise(answer), look_up=errand.look_first)  # nothing of the sale has left
        amount = omneo.money(answer.data.get("total")) or Decimal(0)
    return content | {"items": proportional(content, amount)}


def look_up(talk: Talk, errand: Errand) -> Outcome | None:
    """Does Omneo have this sale? An outcome if it has, or if it can't be asked now; None if it provably hasn't."""
    document, sent = errand.document, talk.now()
    answer = talk.link.ask(omneo.find_sale(document.external_id))
    row = omneo.found_sale(answer, document.external_id)
    if row is not None:
        why = {}
        if omneo.differs(row, document.content):
            why = {"total_there": str(row.get("total")), "total_here": str(document.content["total"])}
        elif omneo.older_than(row, answer, errand.since, sent, errand.set_back_s):
            why = {"replaced": "nothing: it was there before, with the same total"}
        return delivered(errand, answer, row, why, found=True)
    if outcome.nothing_found(answer):
        return None
    return replace(outcome.otherwise(answer), look_up=True)


def delivered(
    errand: Errand, answer: Answer, row: dict[str, Any], conflict: dict[str, str], *, found: bool = False
) -> Outcome:
    """Omneo has it; its id is known."""
    flags = errand.flags + ((("conflict", conflict),) if conflict else ())
    if errand.redeemed is not None and omneo.is_unlinked(row):
        flags += (("redemption_missing", {"why": "Omneo has the sale without it"}),)
    facts = {"omneo_id": omneo.id_of(row)} | ({"found": True} if found else {})
    profile = row["profile_id"] if isinstance(row.get("profile_id"), str) else None
    return Outcome("delivered", facts=facts, flags=flags, status=answer.status, date=answer.date, profile=profile)


def refused(talk: Talk, errand: Errand, answer: Answer) -> Outcome:
    """A no to this document, for good, once a look-up has shown that Omneo doesn't have it all the same."""
    found = look_up(talk, errand)
    if found is not None:
        return found
    facts = {"status": answer.status, "words": omneo.words(answer, errand.document.content)}
    flags = (*errand.flags, ("sale_refused", facts))
    return Outcome("refused", answer.reason, facts=facts, flags=flags, status=answer.status, date=answer.date)


def missing(talk: Talk, errand: Errand, answer: Answer) -> Outcome:
    """A 404 to a sale: about its customer if Omneo doesn't know that profile but knows us, else our configuration."""
    content, handle = errand.document.content, errand.document.content.get("profile_id_handle")
    asked = talk.link.ask(omneo.read_profile(str(content["profile_id"]), handle, talk.policy.routes))
    if outcome.nothing_found(asked) and outcome.meaning(talk.link.ask(omneo.verify_token())) == "yes":
        return refused(talk, errand, answer)
    return outcome.otherwise(answer)


def poisoned(run: Replay, errand: Errand, result: Outcome) -> Outcome:
    """A document that keeps failing with 5xx while Omneo otherwise answers holds up nobody any longer."""
    document = errand.document
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
    found = (look_up if document.kind == "sale" else redeem.look)(run.talk, errand)  # it may have done its work
    if found is not None and (found.settles or found.status is None or found.status < 500):
        return found
    facts = {"status": result.status, "failures": len(failures)}
    return Outcome("held", "it keeps failing while Omneo otherwise answers", facts=facts, flags=(("poison", facts),))


def cancel(run: Replay, pair: Pair) -> Outcome:
    """
    A redemption and its reversal met here, and not one byte of either has left: neither ever goes.

    If the power goes between the two, the other follows: a reversal of what was cancelled is cancelled, and so the
    other way round (`prepare`).
    """
    result = Outcome("cancelled", "redemption and reversal met before either was sent")
    for document in pair.documents:
        record(run, document, result)
    return result


def record(run: Replay, document: Document, result: Outcome) -> None:
    """
    Write down what happened. Many documents share a commit, made before anything waits; what a power cut takes of them
    was let leave on disk, and is looked up again.

    All that is read for it is read first: a book that can't be read just now leaves nothing half recorded.
    """
    run.line.saw(result)
    if not result.settles:
        if result.look_up:
            run.memory.doubt.add(document.seq)
        elif result.kind != "waits":
            run.memory.doubt.discard(document.seq)
            run.memory.unsent.add(document.seq)
        run.books.flush()
        return
    skewed = run.line.skewed(document, result)
    raised = run.books.flags_of(document.seq) if skewed or result.flags else set()  # a flag is raised once a document
    freed = known.freed(run.books, document) if document.kind == "redemption" and result.kind != "held" else []
    flags = [flag for flag in (*result.flags, *run.line.clock_flags(skewed, result)) if flag[0] not in raised]
    facts = result.facts | ({"reason": result.reason} if result.reason else {})
    run.books.record(Entry(result.kind, document.seq, document.external_id, facts))
    for name, detail in flags:
        run.books.record(Entry("flag", document.seq, document.external_id, {"flag": name, **detail}))
        run.say("flagged", flag=name, seq=document.seq)
    if result.kind != "delivered":
        run.say("settled", seq=document.seq, state=result.kind, reason=result.reason, status=result.status)
    run.lane.settle(document, result.profile)
    run.memory.forget(document.seq)
    for other, entry in freed:  # held until this redemption was settled
        run.books.record(entry)
        run.lane.put_back(other)
    if not run.lanes and run.books.flush_due:  # side by side, whoever keeps the books sees to it
        run.books.flush()  # Settled, on disk.
