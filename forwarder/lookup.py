"""
Is it at Omneo already? Asked before anything that may have left is sent again, and after a no.

Found by our own reference, or, where Omneo doesn't give it back, as the only candidate: it is adopted. Absent in two
looks that are a settling time apart: it may be sent again. Anything else is for a person. So is a mere candidate for
what Omneo had once and has lost: too much time lies between for it to be ours and nobody else's.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from forwarder import omneo, outcome
from forwarder.books import Document
from forwarder.errand import Errand, Memory, Policy
from forwarder.known import named_by
from forwarder.link import Link
from forwarder.outcome import Answer, Outcome, moment
from forwarder.witness import mark
from journal.log import Clock

SETTLE_S = 2.0  # absent in two looks so far apart is absent: Omneo documents no delay
SECONDS_S = 5.0  # how exactly a kernel's clock and Omneo's whole seconds tell when an attempt was
CLOSE_S = 120.0  # how far two wall clocks may be apart without a flag
ASTRAY_S = 86400.0  # a wall clock that nothing vouches for is believed to be wrong by no more than this

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Talk:
    """What a conversation needs beside the errand."""

    link: Link
    policy: Policy
    memory: Memory
    now: Clock
    journal: str = ""  # the identity of the journal that sales come from

    def witness(self, document: Document) -> dict[str, Any] | None:
        """What a sale takes along to Omneo, if that is wanted."""
        return mark(self.journal, document.seq, document.digest) if self.policy.witness else None


@dataclass(frozen=True, slots=True)
class Found:
    """It is there."""

    row: Row
    answer: Answer


Search = Found | Outcome | None  # there; can't be told, or can't be asked now; not there


def redemption(talk: Talk, errand: Errand, profile: str, *, told_no: bool = False) -> Search:
    """
    Look for a redemption in the list of its sale and in that of its customer.

    `told_no`: Omneo has just said no to it. Only our own reference outweighs that, and one look is enough.
    """
    content = errand.document.content
    sale = content.get("transaction_external_id")
    shown: Listed | Outcome | None = None
    if sale is not None and content.get("benefit_id") is None:
        shown = listed(talk, errand, lambda page: omneo.redemptions_of_sale(str(sale), page))
        if isinstance(shown, Outcome) and not shown.settles:
            return shown
    if isinstance(shown, Listed) and (ours := _by_reference(shown, errand)) is not None:
        return ours
    known = listed(talk, errand, lambda page: omneo.redemptions_of_customer(profile, page))
    if isinstance(known, Outcome):
        merged_away = known.settles and isinstance(shown, Listed) and not shown.rows
        return absent(talk, errand, told_no=told_no) if merged_away else known
    if (ours := _by_reference(known, errand)) is not None:
        return ours
    if told_no:
        return None
    first, sure = first_attempt(talk, errand, known.answer)
    alike = [row for row in known.rows if _alike(errand, row)] if not _gives_back(talk, errand, known) else []
    weak = [row for row in alike if _moment(row) >= first]
    astray = [row for row in alike if first - timedelta(seconds=ASTRAY_S) <= _moment(row) < first]
    undated = [row for row in alike if moment(row.get("created_at")) is None]
    if len(weak) > 1 or undated or (astray and not sure) or (weak and errand.again):
        return unclear(errand, f"Omneo has {len(weak + astray)} redemptions that could be this one")
    if weak:
        return Found(weak[0], known.answer)
    gone = absent(talk, errand, told_no=False)
    return _all_uses_shown(talk, errand, profile, known) if gone is None else gone


def undoing(talk: Talk, errand: Errand, types: set[str], *, told_no: bool = False) -> Search:
    """Has this reversal or return been done? A redemption is reversed once, by whomever; returns can be many."""
    redeemed = errand.redeemed
    assert redeemed is not None
    known = listed(talk, errand, lambda page: omneo.undone(redeemed.omneo_id, page))
    if isinstance(known, Outcome):
        return known
    there = [
        row
        for row in known.rows
        if row.get("type") in types and str(row.get("linked_source_id") or redeemed.omneo_id) == redeemed.omneo_id
    ]
    strong = [
        row for row in there if row.get("type") == "reversal" or omneo.reference(row) == errand.document.external_id
    ]
    if strong:
        return Found(strong[0], known.answer)
    borrowed = str(named_by(errand.document)).removeprefix("external:")  # it may show its redemption's reference
    weak = [row for row in there if omneo.reference(row) in {None, borrowed} and str(row.get("id")) not in errand.ours]
    alike = [row for row in weak if _same_worth(errand, row)]
    if told_no or not alike:
        return absent(talk, errand, told_no=told_no)
    if len(alike) > 1 or errand.again:
        return unclear(errand, f"Omneo has {len(alike)} returns that could be this one")
    return Found(alike[0], known.answer)


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list at Omneo shows."""

    rows: list[Row]
    answer: Answer


def listed(talk: Talk, errand: Errand, request: Callable[[int], omneo.Request]) -> Listed | Outcome:
    """Every page of a list; an Outcome if it can't be had whole: what isn't in a part of it may be in the rest."""
    rows: list[Row] = []
    answer: Answer | None = None
    pages = 0
    for answer in talk.link.pages(request):
        pages += 1
        meaning = outcome.meaning(answer)
        if meaning == "missing" and not answer.html:
            return unclear(errand, "Omneo does not show what it has")
        if meaning != "yes" or not isinstance(answer.content.get("data"), list):  # a portal may speak JSON too
            return replace(outcome.otherwise(answer), look_up=True)
        rows += answer.rows
    assert answer is not None
    if not answer.ends(pages):
        return unclear(errand, "Omneo's list is too long to be looked through")
    return Listed(rows, answer)


def absent(talk: Talk, errand: Errand, *, told_no: bool) -> Outcome | None:
    """Not there. Proven when it was not there a settling time ago either; until then, look again."""
    if told_no:
        return None
    seq = errand.document.seq
    now_s = talk.link.instant().since_boot_s
    left = talk.memory.absent_since.setdefault(seq, now_s) + SETTLE_S - now_s
    if left > 0:
        return Outcome(
            "deferred", "looking for it at Omneo a second time", look_up=True, retry_after_s=left, line=False
        )
    talk.memory.absent_since.pop(seq, None)
    return None


def unclear(errand: Errand, why: str) -> Outcome:
    """Omneo can't say whether it has it: a person decides."""
    flags = (("doubtful", {"why": why}),)
    return Outcome("held", why, facts={"doubtful": True}, flags=flags + errand.flags)


def first_attempt(talk: Talk, errand: Errand, answer: Answer) -> tuple[datetime, bool]:
    """
    When Omneo can have had it first, by Omneo's own clock, and whether that is sure.

    It is while the kernel runs on that it left under, and this machine's wall clock bears Omneo's out; else two wall
    clocks have to be believed, of which one may have been set in between.
    """
    here = talk.link.instant()
    there = answer.date or here.wall
    age_s = errand.left.until_s(here) if errand.left else None
    if errand.left is not None and age_s is not None:
        astray_s = (here.wall - there).total_seconds(), (here.wall - errand.left.wall).total_seconds() - age_s
        sure = all(abs(each) <= CLOSE_S for each in astray_s)  # else one clock was set since, who knows which
        return (there - timedelta(seconds=age_s + SECONDS_S)).astimezone(UTC), sure
    return (there - (here.wall - errand.since) - timedelta(seconds=CLOSE_S)).astimezone(UTC), False


def _by_reference(known: Listed, errand: Errand) -> Found | Outcome | None:
    strong = [row for row in known.rows if _is_redeem(row) and omneo.reference(row) == errand.document.external_id]
    if len(strong) > 1:
        return unclear(errand, f"Omneo has {len(strong)} redemptions that are this one")
    return Found(strong[0], known.answer) if strong else None


def _gives_back(talk: Talk, errand: Errand, known: Listed) -> bool:
    """Do other rows show a reference in the place where ours would stand? Then what shows none is not ours."""
    if errand.document.content.get("benefit_id") is not None:
        return talk.policy.routes == "guide" and any(row.get("external_id") is not None for row in known.rows)
    metas = [row.get("meta") for row in known.rows]
    return any(isinstance(meta, dict) and meta.get("external_id") is not None for meta in metas)


def _is_redeem(row: Row) -> bool:
    return bool(row.get("type", "redeem") == "redeem")


def _moment(row: Row) -> datetime:
    return moment(row.get("created_at")) or datetime.max.replace(tzinfo=UTC)


def _alike(errand: Errand, row: Row) -> bool:
    """Same customer (it is in their list), kind, value and sale, and nobody else's as far as anybody knows."""
    content = errand.document.content
    if not _is_redeem(row) or omneo.reference(row) is not None or str(row.get("id")) in errand.ours:
        return False
    sale = content.get("transaction_external_id")
    if sale is not None and row.get("transaction_external_id") not in {None, sale}:
        return False
    kinds = {item.get("type") for item in _items(row)}
    if content.get("benefit_id") is not None:
        used = uses(row, str(content["benefit_id"]))
        return kinds <= {"benefit"} and (not kinds or used == int(content.get("count") or 1))
    total, wanted = omneo.money(row.get("total")), omneo.money(content.get("amount"))
    return "benefit" not in kinds and total is not None and wanted is not None and 0 < total <= wanted


def _same_worth(errand: Errand, row: Row) -> bool:
    """A return of as much; what isn't said on either side says nothing against it."""
    content = errand.document.content
    total, wanted = omneo.money(row.get("total")), omneo.money(content.get("amount"))
    return content.get("count") is not None or total is None or wanted is None or total == wanted


def _items(row: Row) -> list[Row]:
    items = row.get("items")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def uses(row: Row, benefit: str) -> int:
    """How many times a redemption used this benefit; an item that doesn't say which is counted."""
    uses = 0
    for item in _items(row):
        which = item.get("type_attributes")
        which = which.get("id") if isinstance(which, dict) else None
        if item.get("type") == "benefit" and (which is None or str(which) == benefit):
            uses += int(item.get("count") or 1)
    return uses


def _all_uses_shown(talk: Talk, errand: Errand, profile: str, known: Listed) -> Outcome | None:
    """A benefit counts its own uses. If it counts more than the list shows, the missing one may be ours."""
    benefit = errand.document.content.get("benefit_id")
    if benefit is None:
        return None
    answer = talk.link.ask(omneo.read_benefit(profile, str(benefit)))
    if outcome.meaning(answer) == "missing":
        return None  # whatever is sent now is answered with the same
    if outcome.meaning(answer) != "yes":
        return replace(outcome.otherwise(answer), look_up=True)
    most, left = answer.data.get("max_redemptions"), answer.data.get("redemptions_remaining")
    if not isinstance(most, int) or not isinstance(left, int):
        return None
    sign = {"redeem": 1, "reversal": -1}
    shown = sum(sign.get(row.get("type", "redeem"), 0) * uses(row, str(benefit)) for row in known.rows)
    if most - left <= shown:
        return None
    return unclear(errand, f"the benefit counts {most - left} uses, its customer's list shows {shown}")
