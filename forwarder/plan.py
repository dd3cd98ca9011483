"""
What would go next, in which order and why: `omneo-forwarder plan`. Nothing is sent, and nothing is written.

The lane and `prepare` are those of `replay.step`; each document is then taken for delivered, and the next is asked for.
"""

from collections.abc import Iterator
from typing import Any

from forwarder import known
from forwarder.books import Books, Document
from forwarder.by_customer import ByCustomer
from forwarder.errand import Memory, Pair, Policy, Prepared, View, prepare
from forwarder.lane import Strict
from forwarder.outcome import Outcome
from forwarder.window import Instant
from journal.log import Entry


def plan(books: Books, policy: Policy, lanes: int, now: Instant) -> Iterator[dict[str, Any]]:
    """One row a document, in the order in which they would leave if Omneo said yes to each."""
    lane = ByCustomer(books, policy.window_s) if lanes else Strict(books)
    view = View(books, Memory(), policy, now, None)
    while (due := lane.next_ready()) is not None:
        document, ready = prepare(due, view)
        for each in ready.documents if isinstance(ready, Pair) else (document,):
            what, why = told(books, each, ready)
            if each.seq != due.seq:
                why = f"before {due.external_id}, which needs it; {why}"
            yield {"seq": each.seq, "kind": each.kind, "external_id": each.external_id, "what": what, "why": why}
            books.record(supposed(each, ready))
            lane.settle(each)


def told(books: Books, document: Document, ready: Prepared) -> tuple[str, str]:
    """What is to be done, and why."""
    if isinstance(ready, Pair):
        return "cancel", "redemption and reversal meet before either was sent"
    if isinstance(ready, Outcome):
        return {"waits": "wait", "held": "hold", "cancelled": "cancel"}.get(ready.kind, ready.kind), ready.reason
    reasons = ["a person released it"] if known.released_by_hand(books, document.seq) else []
    reasons += ["it may have left already: it is looked for at Omneo first"] if ready.look_first else []
    reasons += [
        f"without a redemption: {detail['why']}" for name, detail in ready.flags if name == "redemption_missing"
    ]
    if document.kind == "reversal":
        reasons.append("too late for a reversal: as a return" if ready.as_return else "its window is still open")
    return "send", "; ".join(reasons) or "nothing that has to go before it waits"


def supposed(document: Document, ready: Prepared) -> Entry:
    """What the delivery book would say if all went well."""
    settled = ready.kind if isinstance(ready, Outcome) and ready.settles else "delivered"
    kind = "cancelled" if isinstance(ready, Pair) else settled
    facts = {"omneo_id": 0} if kind == "delivered" else {}
    return Entry(kind, document.seq, document.external_id, facts)
