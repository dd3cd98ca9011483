"""What is to be done with what Omneo has lost: a plan first, in the order in which it would go."""

from collections.abc import Sequence
from typing import Any

from forwarder import known, ours
from forwarder.books import Books, Document
from forwarder.compare import figure

Row = dict[str, Any]


def plan(books: Books, differences: Sequence[Row], *, value: bool) -> list[Row]:
    """
    One row for each document that is missing at Omneo: `send` or `leave`, and why.

    Sending is the ordinary way: it waits again, is looked for once more when its turn comes, and goes after what it
    names. A redemption that is gone with its reversal is cancelled with it there, since neither is at Omneo.

    Without `value` only sales go. That a redemption's row is gone says nothing of the customer's value: if Omneo has
    not given that back too, a redemption that is sent again takes it twice, and a return gives it twice.
    """
    lost = {row["seq"] for row in differences if row["what"] == "missing_there"}
    rows = []
    for seq in sorted(lost):
        document = books.document(seq)
        if document is not None:
            what, why = _decided(books, document, lost, value=value)
            who = {"seq": document.seq, "kind": document.kind, "external_id": document.external_id}
            rows.append(who | {"what": what, "why": why})
    return rows


def _decided(books: Books, document: Document, lost: set[int], *, value: bool) -> tuple[str, str]:
    if books.state(document.seq) != "delivered":
        return "leave", "it is not delivered any more, as the delivery book has it"
    if document.gone:
        return "leave", "its bytes are not in the journal: there is nothing to send"
    if document.kind == "sale":
        return "send", "looked for by its external_id, sent if it isn't there"
    what, why = _redemption(books, document, lost) if document.kind == "redemption" else _undoing(books, document, lost)
    if what == "send" and not value:
        return "leave", f"it moves a customer's value: with --value, and only if Omneo has undone it ({why})"
    return what, why


def _undoing(books: Books, document: Document, lost: set[int]) -> tuple[str, str]:
    redemption, _ = known.redemption(books, str(known.named_by(document)))
    if redemption is not None and redemption.seq in lost:
        if _redemption(books, redemption, lost)[0] == "leave" or redemption.gone:
            return "leave", "its redemption is lost too, and can't be sent again"
        if document.kind == "reversal":
            return "send", "its redemption is lost too: if neither is found, both are cancelled"
        return "send", "after its redemption, which is lost too"
    if document.kind == "reversal":
        return (
            "send",
            "looked for; if it isn't there and comes too late, sent as a return: the customer gets the value back",
        )
    return "send", "looked for, sent if it isn't there: the customer gets the value back"


def _redemption(books: Books, document: Document, lost: set[int]) -> tuple[str, str]:
    name = f"external:{document.external_id}"
    undone = {
        kind: [each for each, state in known.naming(books, name, kind) if state == "delivered"]
        for kind in ("reversal", "return")
    }
    if any(each.seq not in lost or each.gone for each in undone["reversal"]):
        return "leave", "its reversal is at Omneo: nothing is left to be spent"
    if any(each.seq not in lost or each.gone for each in undone["return"]):
        return "leave", "a return of it is at Omneo: how much is left to be spent, a person has to say"
    if undone["reversal"]:
        return "send", "its reversal is lost too: if neither is found, both are cancelled"
    asked, made = figure(document.content.get("amount")), figure(ours.delivered(books, document.seq).get("total"))
    if asked is not None and made is not None and made < asked:
        return "leave", f"Omneo had given {made} of {asked}, and would now be asked for all: a person has to say"
    return "send", "looked for by its reference, redeemed again if it isn't there: the customer's value is taken"
