"""What is to be done with what Omneo has lost: a plan first, in the order in which it would go."""

from collections.abc import Sequence
from typing import Any

from forwarder import known
from forwarder.books import Books, Document

Row = dict[str, Any]


def plan(books: Books, differences: Sequence[Row]) -> list[Row]:
    """
    One row for each document that is missing at Omneo: `send` or `leave`, and why.

    Sending is the ordinary way: it waits again, is looked for once more when its turn comes, and goes after what it
    names. A redemption that is gone with its reversal is cancelled with it there, since neither is at Omneo.
    """
    lost = {row["seq"] for row in differences if row["what"] == "missing_there"}
    documents = [books.document(seq) for seq in sorted(lost)]
    rows = []
    for document in documents:
        if document is not None:
            what, why = _decided(books, document, lost)
            who = {"seq": document.seq, "kind": document.kind, "external_id": document.external_id}
            rows.append(who | {"what": what, "why": why})
    return rows


def _decided(books: Books, document: Document, lost: set[int]) -> tuple[str, str]:
    if books.state(document.seq) != "delivered":
        return "leave", "it is not delivered any more, as the delivery book has it"
    if document.gone:
        return "leave", "its bytes are not in the journal: there is nothing to send"
    if document.kind == "sale":
        return "send", "looked for by its external_id, sent if it isn't there"
    if document.kind == "redemption":
        return _redemption(books, document, lost)
    redemption, _ = known.redemption(books, str(known.named_by(document)))
    if redemption is not None and redemption.seq in lost:
        if redemption.gone:
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
    reversals = known.naming(books, f"external:{document.external_id}", "reversal")
    undone = [(reversal, state) for reversal, state in reversals if state == "delivered"]
    if any(reversal.seq not in lost or reversal.gone for reversal, _ in undone):
        return "leave", "its reversal is at Omneo: nothing is left to be spent"
    if undone:
        return "send", "its reversal is lost too: if neither is found, both are cancelled"
    return "send", "looked for by its reference, redeemed again if it isn't there: the customer's value is taken"
