"""
What a document means beside what the journal holds already: new, a repeat, a conflict; and which flags it raises.

Nothing here writes: `judge` says what to append and what becomes of the file, `ingest` does it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

import schemas
from journal.document import KINDS, Document, Problem, names, read, same
from journal.known import CONFLICT, Known
from journal.log import Entry
from journal.rejected import printable
from journal.totals import totals

TOO_LARGE = "over the size limit"
TAKEN = Problem("/external_id", "must be new: a document with other content had it first")


@dataclass(slots=True)
class Verdict:
    """What becomes of one file: the entries to append, and whether it is taken or set aside."""

    document: Document
    fate: str  # accept: it is in the log with this batch; repeat: it was there before; reject: it goes to rejected/
    entries: list[Entry] = field(default_factory=list)
    first: "Entry | int" = 0  # the entry that holds this document: of this batch, or the seq of an earlier one
    reason: str = ""  # of a rejected file; of a repeat: it is the very file that was rejected for this reason before

    @property
    def seq(self) -> int:
        """Seq of the entry that holds the document, once the batch has been appended."""
        return self.first.seq if isinstance(self.first, Entry) else self.first


def judge(document: Document, known: Known, *, size: int, sha256: str | None = None) -> Verdict:
    """
    Decide on one document, in the order in which they came: what to append, and what becomes of the file.

    `size` is the file's in bytes; `sha256` stands for the body of a file over the limit, which is not kept.
    """
    if sha256 is not None:
        return _oversize(document, known, size, sha256)
    if document.kind == "canary":
        return _canary(document, known)
    if document.kind == "invalid":
        return _invalid(document, known)
    assert document.external_id is not None
    first = known.first(document.external_id)
    if first is not None:
        entry, content = first
        if content is not None and same(content, document.content):
            return Verdict(document, "repeat", first=entry)
        return _conflict(document, known)
    known.ordinal += 1
    entry = Entry(document.kind, None, document.external_id, _facts(document, known.ordinal), document.body)
    entries = [entry]
    for check in CHECKS:
        entries += check(document, entry, known)
    known.add(document, entry)
    return Verdict(document, "accept", entries, entry)


def flag(name: str, entry: Entry, **detail: Any) -> Entry:
    """A flag: something a person must know about a document."""
    return Entry("flag", entry, entry.external_id, {"flag": name, **detail})


def in_words(document: Document) -> str:
    """Why a file can't be taken, with the first thing that is wrong in it. Nothing personal: it goes into the log."""
    if not document.problems:
        return document.reason
    first = document.problems[0]
    named = public(first.pointer)
    where = named if named == first.pointer else f"something in {named}" if named else "something in it"
    return f"{document.reason}: {where or 'the document'} {first.message}"


def _canary(document: Document, known: Known) -> Verdict:
    """A file of our own (journal/canary.py). One that can't be removed comes again and again, and is one entry."""
    number = (document.content or {})["canary"]
    if number == known.canary():
        return Verdict(document, "repeat")
    return Verdict(document, "accept", [Entry("canary", facts={"canary": number})])


def _invalid(document: Document, known: Known) -> Verdict:
    reason = in_words(document)
    document = replace(document, reason=reason)
    if (first := known.invalid(document)) is not None:
        return Verdict(document, "reject", first=first, reason=reason)
    facts = {
        "file": printable(document.name),
        "bytes": len(document.body),
        "reason": reason,
        "pointers": [public(problem.pointer) for problem in document.problems],
    }
    entry = Entry("invalid", None, document.external_id, facts, document.body)
    known.add(document, entry)
    return Verdict(document, "reject", [entry, flag("invalid", entry, reason=reason)], entry, reason)


def _oversize(document: Document, known: Known, size: int, sha256: str) -> Verdict:
    """A file over the limit: its size and hash are the evidence, its bytes stay in rejected/."""
    reason = document.reason
    if (first := known.oversize(document, size, sha256)) is not None:
        return Verdict(document, "reject", first=first, reason=reason)
    facts = {"file": printable(document.name), "bytes": size, "sha256": sha256, "reason": reason}
    entry = Entry("invalid", facts=facts)
    known.add(document, entry)
    return Verdict(document, "reject", [entry, flag("invalid", entry, reason=reason)], entry, reason)


def _conflict(document: Document, known: Known) -> Verdict:
    """
    The same external_id with other content: kept as evidence, never forwarded.

    One that comes again is a repeat. But if it is the same file, the power may have gone before it was set aside.
    """
    name = printable(document.name)
    invalid = replace(document, kind="invalid", reason=CONFLICT, problems=(TAKEN,))
    if (repeated := known.conflicting(document)) is not None:
        first, file = repeated
        return Verdict(invalid, "repeat", first=first, reason=in_words(invalid) if file == name else "")
    facts = {"file": name, "bytes": len(document.body), "reason": CONFLICT}
    entry = Entry("invalid", None, document.external_id, facts, document.body)
    known.add(invalid, entry)
    raised = flag("conflict", entry, claimed=document.kind)
    return Verdict(invalid, "reject", [entry, raised], entry, in_words(invalid))


def _facts(document: Document, ordinal: int) -> dict[str, Any]:
    """What the log says of a document beside its body: enough to count, sum and find gaps, and nothing personal."""
    content = document.content or {}
    facts: dict[str, Any] = {"bytes": len(document.body), "n": ordinal}
    if content.get("terminal") is not None:
        facts["terminal"] = content["terminal"]
    if content.get("sequence") is not None:
        facts["sequence"] = int(content["sequence"])  # JSON Schema takes 17.0 for an integer
    for name in ("total", "amount", "count"):
        if isinstance(content.get(name), (int, Decimal)):
            facts[name] = str(content[name])
    if (named := names(document.kind, content)) is not None:
        facts["names"] = named
    if isinstance(content.get("currency"), str):
        facts["currency"] = content["currency"][:8]
    return facts


def public(pointer: str) -> str:
    """As much of a pointer as names fields that the schemas know: a key of the till's own making may be personal."""
    kept = []
    for token in pointer.split("/")[1:]:
        if token not in _fields() and not (token.isdigit() and len(token) <= 4):
            break
        kept.append("/" + token)
    return "".join(kept)


@lru_cache
def _fields() -> frozenset[str]:
    return frozenset(name for kind in KINDS for name in _named(schemas.load(kind)))


def _named(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from _named(part)


def _totals(document: Document, entry: Entry, known: Known) -> list[Entry]:
    if document.kind != "sale" or document.content is None:
        return []
    detail = totals(document.content, known.redeemed(document.content))
    return [flag("totals_mismatch", entry, **detail)] if detail else []


def gaps(known: Known) -> list[Entry]:
    """
    What a whole batch says about the terminals' numbers: a gap is flagged on the document after it, and closed when
    the last late file that fills it has come. Judged once a batch, because files of one moment come in any order.
    """
    found = []
    for terminal, numbers in known.numbers.items():
        last = known.last_number(terminal)
        if last is None:
            last = next(iter(numbers))  # a terminal starts at the first number seen
        for number in sorted(numbers):
            if number > last + 1:
                detail = {"terminal": terminal, "from": last + 1, "to": number - 1}
                found.append(flag("sequence_gap", numbers[number], **detail))
            last = max(last, number)
        for seq, about, low, high in known.open_gaps(terminal):
            late = {number for number in numbers if low <= number <= high}
            if late and len(late | known.arrived(terminal, low, high)) == high - low + 1:
                facts = {"flag": f"J{seq}", "by": "omneo-journal", "note": "what was missing has come"}
                found.append(Entry("resolution", about, None, facts))
    return found


Check = Callable[[Document, Entry, Known], list[Entry]]
CHECKS: tuple[Check, ...] = (_totals,)


def on_its_own(name: str, body: bytes | None) -> tuple[Document, list[str]]:
    """What can be said of a file without a journal: the document, and its flags. `None` is a body over the limit."""
    if body is None:
        return Document(name, b"", "invalid", None, None, TOO_LARGE), []
    document = read(name, body)
    if document.kind != "sale" or document.content is None:
        return document, []
    return document, ["totals_mismatch"] if totals(document.content) else []
