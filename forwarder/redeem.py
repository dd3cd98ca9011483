"""
The conversation about a redemption, a reversal or a return. None of the three is idempotent at Omneo.

Whatever may have reached Omneo is looked for before anything is sent again: found by our own reference (or, where Omneo
doesn't give it back, as the only candidate), it is adopted; proven absent, it is sent again; else a person decides.
"""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from forwarder import errand as errands
from forwarder import omneo, outcome, window
from forwarder.errand import Errand, Memory, Policy
from forwarder.link import Link
from forwarder.outcome import Answer, Outcome, moment
from journal.document import local_time
from journal.log import Clock

SETTLE_S = 2.0  # absent in two looks so far apart is absent: Omneo documents no delay
CLOSE_S = 120.0  # how far Omneo's clock and ours may be apart for a candidate to be of the attempt's time

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Talk:
    """What a conversation needs beside the errand."""

    link: Link
    policy: Policy
    memory: Memory
    now: Clock


def redemption(talk: Talk, errand: Errand) -> Outcome:
    """Spend rewards, points, credits or a benefit, once."""
    profile = customer(talk, errand)
    if isinstance(profile, Outcome):
        return profile
    if errand.look_first:
        found = find_redemption(talk, errand, profile)
        if found is not None:
            return replace(found, profile=profile)
    answer = talk.link.ask(omneo.redeem(errand.document.content, profile, talk.policy.routes))
    match outcome.meaning(answer):
        case "yes" if answer.data.get("id") is not None:
            return replace(redeemed(talk, errand, answer.data, answer), profile=profile)
        case "no":
            return refused(talk, errand, answer, find_redemption(talk, errand, profile, settled=True))
        case "missing":
            return missing(talk, errand, answer, omneo.read_profile(profile, None))
    return outcome.otherwise(answer)  # what may have left is looked for before anything is sent again


def customer(talk: Talk, errand: Errand) -> str | Outcome:
    """Omneo's UUID of the customer, resolved when the document's turn comes."""
    content = errand.document.content
    value, handle = str(content["profile_id"]), content.get("profile_id_handle")
    if handle is None:
        return value
    answer = talk.link.ask(omneo.read_profile(value, str(handle), talk.policy.routes))
    meaning = outcome.meaning(answer)
    if meaning == "yes":
        rows = [row for row in [answer.data, *answer.rows] if row]
        ids = {str(row.get("profile_id") or row.get("id")) for row in rows}
        if len(ids) == 1:
            return ids.pop()
    if meaning in {"missing", "no"} or (meaning == "yes" and isinstance(answer.content.get("data"), list)):
        if errand.look_first:
            return unclear(errand, "its customer can't be found at Omneo any more")
        unknown = {"message": "Omneo does not know the customer."}
        return refused(talk, errand, replace(answer, content=unknown, reason="Omneo does not know the customer"), None)
    return outcome.otherwise(answer)


def redeemed(talk: Talk, errand: Errand, row: Row, answer: Answer) -> Outcome:
    """Omneo has it. How late it came, and whether it was all of it, is for a person to know."""
    content = errand.document.content
    created = moment(row.get("created_at"))
    made_at = created or answer.date or talk.now()
    issued = local_time(content["issued_at"], content["timezone"])
    late = window.lateness(issued, errand.document.received_at, made_at, talk.policy.window_s)
    flags = list(errand.flags)
    if late.judged != "in":
        flags.append(("reversal_window_exceeded", {"verdict": late.judged, **late.inputs}))
    total = omneo.money(row.get("total"))
    wanted = omneo.money(content.get("amount"))
    if total is not None and wanted is not None and total < wanted:
        flags.append(("redemption_short", {"asked": str(wanted), "redeemed": str(total)}))
    facts = {
        "omneo_id": omneo.id_of(row),
        "created_at": _iso(created),
        "date": _iso(answer.date),
        "total": None if total is None else str(total),
        "late_s": late.inputs["seconds"],
    }
    return Outcome("delivered", facts=facts, flags=tuple(flags), status=answer.status, date=answer.date)


def find_redemption(talk: Talk, errand: Errand, profile: str, *, settled: bool = False) -> Outcome | None:
    """
    Is it at Omneo? Adopted if it is, None if it provably isn't, held if nobody can tell, deferred if not now.

    `settled`: Omneo has just said no to it, so that one look at what is there is enough.
    """
    content = errand.document.content
    rows: list[Row] = []
    answer: Answer | None = None
    for answer in talk.link.pages(lambda page: omneo.redemptions_of_customer(profile, page)):
        if outcome.meaning(answer) != "yes":
            return look_up_failed(errand, answer)
        rows += answer.rows
    assert answer is not None
    ours = [row for row in rows if row.get("type", "redeem") == "redeem"]
    strong = [row for row in ours if omneo.reference(row) == errand.document.external_id]
    if len(strong) == 1:
        return redeemed(talk, errand, strong[0], answer)
    weak = [row for row in ours if omneo.reference(row) is None and _could_be(errand, row, content)]
    if len(strong) > 1 or len(weak) > 1:
        return unclear(errand, f"Omneo has {len(strong) or len(weak)} redemptions that could be this one")
    if weak:
        return redeemed(talk, errand, weak[0], answer)
    return absent(talk, errand, settled=settled)


def _could_be(errand: Errand, row: Row, content: Row) -> bool:
    """Same customer (it is in their list), kind, value and sale, made within the attempt's time, nobody else's."""
    created = moment(row.get("created_at"))
    if str(row.get("id")) in errand.ours or created is None:
        return False
    if created < errand.since.astimezone(UTC) - timedelta(seconds=CLOSE_S):
        return False
    sale = content.get("transaction_external_id")
    if sale is not None and row.get("transaction_external_id") not in {None, sale}:
        return False
    kinds = {item.get("type") for item in row.get("items") or [] if isinstance(item, dict)}
    if content.get("benefit_id") is not None:
        return kinds <= {"benefit"}
    total, wanted = omneo.money(row.get("total")), omneo.money(content.get("amount"))
    return "benefit" not in kinds and total is not None and wanted is not None and 0 < total <= wanted


def reversal(talk: Talk, errand: Errand) -> Outcome:
    """Undo a redemption, if it can still arrive inside the window; never a hopeful one."""
    redeemed_ = errand.redeemed
    assert redeemed_ is not None
    if errand.look_first:
        found = find_undoing(talk, errand, {"reversal", "return"})
        if found is not None:
            return found
    ready = judged_in_time(talk, errand)
    if isinstance(ready, Outcome):
        return ready
    if ready.as_return:
        return give_back(talk, replace(ready, look_first=False))
    answer = talk.link.ask(omneo.reverse(errand.document.content, redeemed_.omneo_id))
    match outcome.meaning(answer):
        case "yes" if answer.data.get("id") is not None:
            return undone(errand, answer.data, answer)
        case "no":
            return refused(talk, errand, answer, find_undoing(talk, errand, {"reversal"}, settled=True))
        case "missing":
            return missing(talk, errand, answer, omneo.read_redemption(redeemed_.omneo_id))
    return outcome.otherwise(answer)  # what may have left is looked for before anything is sent again


def judged_in_time(talk: Talk, errand: Errand) -> Errand | Outcome:
    """The verdict right before the first byte, by what Omneo says then of its clock and of the redemption."""
    assert errand.redeemed is not None
    made = errand.redeemed.made
    answer = talk.link.ask(omneo.read_redemption(errand.redeemed.omneo_id))
    if outcome.meaning(answer) not in {"yes", "missing", "no"}:
        return outcome.otherwise(answer)
    known = [at for at in (made.created_at, moment(answer.data.get("created_at"))) if at is not None]
    made = replace(made, created_at=min(known) if known else None)
    errand = replace(errand, redeemed=replace(errand.redeemed, made=made))
    now, clock = talk.link.instant(), talk.link.omneo_clock
    ready = errands.in_time(errand, talk.policy, now, clock)
    if clock is None and isinstance(ready, Errand) and not ready.as_return:  # no more hope of learning it
        verdict = window.reversal(made, now, None, talk.policy.window_s, talk.policy.reserve_s)
        return ready if verdict.judged == "in" else errands.too_late(errand, talk.policy, verdict)
    return ready


def give_back(talk: Talk, errand: Errand) -> Outcome:
    """A return: value, or a benefit, comes back as something new."""
    redeemed_ = errand.redeemed
    assert redeemed_ is not None
    if errand.look_first:
        found = find_undoing(talk, errand, {"return"})
        if found is not None:
            return found
    answer = talk.link.ask(omneo.give_back(errand.document.content, redeemed_.omneo_id, benefit=redeemed_.benefit))
    match outcome.meaning(answer):
        case "yes" if answer.data.get("id") is not None:
            return undone(errand, answer.data, answer)
        case "no":
            return refused(talk, errand, answer, find_undoing(talk, errand, {"return"}, settled=True))
        case "missing":
            return missing(talk, errand, answer, omneo.read_redemption(redeemed_.omneo_id))
    return outcome.otherwise(answer)  # what may have left is looked for before anything is sent again


def find_undoing(talk: Talk, errand: Errand, types: set[str], *, settled: bool = False) -> Outcome | None:
    """Has this reversal or return been done? A redemption is reversed once; returns carry our reference."""
    redeemed_ = errand.redeemed
    assert redeemed_ is not None
    rows: list[Row] = []
    answer: Answer | None = None
    for answer in talk.link.pages(lambda page: omneo.undone(redeemed_.omneo_id, page)):
        if outcome.meaning(answer) != "yes":
            return look_up_failed(errand, answer)
        rows += answer.rows
    assert answer is not None
    there = [row for row in rows if row.get("type") in types]
    strong = [row for row in there if omneo.reference(row) == errand.document.external_id]
    whole = [row for row in there if row.get("type") == "reversal" and omneo.reference(row) is None]
    weak = [row for row in there if row.get("type") == "return" and omneo.reference(row) is None]
    if strong or whole:
        return undone(errand, (strong or whole)[0], answer)
    if weak:
        return unclear(errand, f"Omneo has {len(weak)} returns that could be this one")
    return absent(talk, errand, settled=settled)


def undone(errand: Errand, row: Row, answer: Answer) -> Outcome:
    """Omneo has the reversal or return."""
    facts = {"omneo_id": omneo.id_of(row)} | ({"as": "return"} if errand.as_return else {})
    return Outcome("delivered", facts=facts, flags=errand.flags, status=answer.status, date=answer.date)


def absent(talk: Talk, errand: Errand, *, settled: bool) -> Outcome | None:
    """Not there. Proven when it was not there a settling time ago either; until then, look again."""
    if settled:
        return None
    seq = errand.document.seq
    since = talk.memory.absent_since.setdefault(seq, time.monotonic())
    left = since + SETTLE_S - time.monotonic()
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


def look_up_failed(errand: Errand, answer: Answer) -> Outcome:
    """The question can't be asked now, or not at all."""
    if outcome.meaning(answer) == "missing" and not answer.html:
        return unclear(errand, "Omneo does not show what it has")
    return replace(outcome.otherwise(answer), look_up=True)


def refused(talk: Talk, errand: Errand, answer: Answer, found: Outcome | None) -> Outcome:
    """A no for good, unless a look shows that Omneo has it all the same."""
    if found is not None and found.kind in {"delivered", "deferred", "paused"}:
        return found
    facts = {"status": answer.status, "words": omneo.words(answer, errand.document.content)}
    name = {"redemption": "redemption_refused", "reversal": "reversal_too_late"}.get(errand.document.kind)
    flags = errand.flags + (((name, facts),) if name and not errand.as_return else ())
    talk.memory.absent_since.pop(errand.document.seq, None)
    return Outcome("refused", answer.reason, facts=facts, flags=flags, status=answer.status, date=answer.date)


def missing(talk: Talk, errand: Errand, answer: Answer, read: omneo.Request) -> Outcome:
    """A 404: about the document if Omneo says 404 for its object too and otherwise knows us; else configuration."""
    there = talk.link.ask(read)
    if outcome.meaning(there) == "missing" and outcome.meaning(talk.link.ask(omneo.verify_token())) == "yes":
        return refused(talk, errand, answer, None)
    if errand.document.kind == "redemption" and errand.document.content.get("benefit_id") is not None:
        profile, benefit = read[1].split("/")[2], str(errand.document.content["benefit_id"])
        if outcome.meaning(talk.link.ask(omneo.read_benefit(profile, benefit))) == "missing":
            return refused(talk, errand, answer, None)
    return outcome.otherwise(answer)


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
