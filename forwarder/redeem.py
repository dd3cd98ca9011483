"""
The conversation about a redemption, a reversal or a return. None of the three is idempotent at Omneo.

Whatever may have reached Omneo is looked for before anything is sent again: found by our own reference (or, where Omneo
doesn't give it back, as the only candidate), it is adopted; proven absent, it is sent again; else a person decides.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

from forwarder import errand as errands
from forwarder import lookup, omneo, outcome, window
from forwarder.errand import Errand
from forwarder.lookup import Found, Talk
from forwarder.outcome import Answer, Outcome, moment
from journal.document import local_time

Row = dict[str, Any]


def redemption(talk: Talk, errand: Errand) -> Outcome:
    """Spend rewards, points, credits or a benefit, once."""
    profile = customer(talk, errand)
    if isinstance(profile, Outcome):
        return profile
    if errand.look_first:
        there = lookup.redemption(talk, errand, profile)
        if there is not None:
            return replace(adopted(talk, errand, there), profile=profile)
        if errand.unwanted:
            return Outcome("cancelled", "Omneo does not have it, and its reversal waits")
    answer = talk.link.ask(omneo.redeem(errand.document.content, profile, talk.policy.routes))
    match outcome.meaning(answer):
        case "yes" if omneo.is_ours(answer.data, errand.document.external_id):
            return replace(redeemed(talk, errand, answer.data, answer), profile=profile)
        case "no":
            return refused(talk, errand, answer, lookup.redemption(talk, errand, profile, told_no=True))
        case "missing":
            if customer(talk, errand) != profile:
                return Outcome("deferred", "its customer has become another at Omneo", line=False)
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
        found = omneo.profile_shown(answer)
        if found is not None:
            return found
    if meaning in {"missing", "no"} or (meaning == "yes" and isinstance(answer.content.get("data"), list)):
        if errand.look_first:
            return lookup.unclear(errand, "its customer can't be found at Omneo any more")
        unknown = {"message": "Omneo does not know the customer."}
        return refused(talk, errand, replace(answer, content=unknown, reason="Omneo does not know the customer"), None)
    return outcome.otherwise(answer)


def look(talk: Talk, errand: Errand) -> Outcome | None:
    """Has Omneo got it, after all that went wrong? One look, after which it is held and nothing is sent again."""
    if errand.document.kind == "redemption":
        profile = customer(talk, replace(errand, look_first=True))
        if isinstance(profile, Outcome):
            return profile
        there = lookup.redemption(talk, errand, profile, told_no=True)
    else:
        types = {"reversal", "return"} if errand.document.kind == "reversal" else {"return"}
        there = lookup.undoing(talk, errand, types, told_no=True)
    return None if there is None else adopted(talk, errand, there)


def adopted(talk: Talk, errand: Errand, there: Found | Outcome) -> Outcome:
    """What a look-up came to: what was found is ours."""
    if isinstance(there, Outcome):
        return there
    kind = redeemed if errand.document.kind == "redemption" else undone
    return kind(talk, errand, there.row, there.answer, found=True)


def redeemed(talk: Talk, errand: Errand, row: Row, answer: Answer, *, found: bool = False) -> Outcome:
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
        "date": None if found else _iso(answer.date),  # only the first answer compares with `created_at`
        "total": None if total is None else str(total),
        "late_s": late.inputs["seconds"],
    }
    return Outcome("delivered", facts=facts, flags=tuple(flags), status=answer.status, date=answer.date)


def reversal(talk: Talk, errand: Errand) -> Outcome:
    """Undo a redemption, if it can still arrive inside the window; never a hopeful one."""
    redeemed_ = errand.redeemed
    assert redeemed_ is not None
    if errand.look_first:
        there = lookup.undoing(talk, errand, {"reversal", "return"})
        if there is not None:
            return adopted(talk, errand, there)
    ready = judged_in_time(talk, errand)
    if isinstance(ready, Outcome):  # nothing of it left, or what left has come to nothing
        return replace(ready, facts=ready.facts | {"undone": False}) if ready.settles else ready
    if ready.as_return:
        return give_back(talk, replace(ready, look_first=False))
    answer = talk.link.ask(omneo.reverse(errand.document.content, redeemed_.omneo_id), ready.within_s)
    match outcome.meaning(answer):
        case "yes" if omneo.is_ours(answer.data, errand.document.external_id):
            return undone(talk, errand, answer.data, answer)
        case "no":
            return refused(talk, errand, answer, lookup.undoing(talk, errand, {"reversal"}, told_no=True))
        case "missing":
            return missing(talk, errand, answer, omneo.read_redemption(redeemed_.omneo_id))
    return outcome.otherwise(answer)  # what may have left is looked for before anything is sent again


def judged_in_time(talk: Talk, errand: Errand) -> Errand | Outcome:
    """The verdict right before the first byte, by what Omneo says then of its clock and of the redemption."""
    assert errand.redeemed is not None
    made = errand.redeemed.made
    answer = talk.link.ask(omneo.read_redemption(errand.redeemed.omneo_id))
    found = omneo.is_redemption(answer, errand.redeemed.omneo_id)
    if not found and outcome.meaning(answer) not in {"missing", "no"}:
        return outcome.otherwise(answer)
    there = moment(answer.data.get("created_at")) if found else None
    known = [at for at in (made.created_at, there) if at is not None]
    by_the_till = errand.document.content.get("redeemed_at") is not None  # whose clock may be anywhere
    made = replace(made, created_at=None if by_the_till and there is None else min(known, default=None))
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
        there = lookup.undoing(talk, errand, {"return"})
        if there is not None:
            return adopted(talk, errand, there)
    answer = talk.link.ask(omneo.give_back(errand.document.content, redeemed_.omneo_id, benefit=redeemed_.benefit))
    match outcome.meaning(answer):
        case "yes" if omneo.is_ours(answer.data, errand.document.external_id):
            return undone(talk, errand, answer.data, answer)
        case "no":
            return refused(talk, errand, answer, lookup.undoing(talk, errand, {"return"}, told_no=True))
        case "missing":
            return missing(talk, errand, answer, omneo.read_redemption(redeemed_.omneo_id))
    return outcome.otherwise(answer)  # what may have left is looked for before anything is sent again


def undone(talk: Talk, errand: Errand, row: Row, answer: Answer, *, found: bool = False) -> Outcome:
    """Omneo has the reversal or return."""
    facts: dict[str, Any] = {"omneo_id": omneo.id_of(row)} | ({"found": True} if found else {})
    flags = errand.flags
    if errand.document.kind == "reversal" and (errand.as_return or row.get("type") == "return"):
        facts["as"] = "return"
        if not flags and errand.redeemed is not None:  # it went as a return, and then its answer was lost
            here, clock, policy = talk.link.instant(), talk.link.omneo_clock, talk.policy
            late = window.reversal(errand.redeemed.made, here, clock, policy.window_s, policy.reserve_s)
            flags = (("reversal_too_late", {"verdict": late.judged, **late.inputs}),)
    return Outcome("delivered", facts=facts, flags=flags, status=answer.status, date=answer.date)


def refused(talk: Talk, errand: Errand, answer: Answer, there: lookup.Search) -> Outcome:
    """A no for good, unless a look shows that Omneo has it all the same."""
    if isinstance(there, Found) or (there is not None and not there.settles):
        return adopted(talk, errand, there)
    facts = {"status": answer.status, "words": omneo.words(answer, errand.document.content)}
    flags = errand.flags
    if errand.document.kind == "redemption":
        flags += (("redemption_refused", facts),)
    elif errand.document.kind == "reversal" and not errand.as_return:
        flags += (("reversal_too_late", facts),)
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
