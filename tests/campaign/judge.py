"""Says from outside whether every promise was kept: it shares no code with the programs that it judges."""

import contextlib
import json
import sqlite3
from collections import Counter
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from tests.campaign.drops import LIMIT, Doc, Drop
from tests.campaign.events import waiting_files
from tests.campaign.programs import Place

OURS = {"kind", "terminal", "sequence", "redemption_external_id", "apply_redemption"}  # contract, section 8
NO_FOR_SURE = {"throttle", "unauthorized", "forbidden", "status"}  # answers that say: not done; no doubt to look into
ASIDE = {"broken", "broken again", "conflict"}  # what has to be in rejected/ (a conflict repeated is a repeat)

Verdict = dict[str, list[str]]  # check → what it found wrong, in words


def judge(place: Place, drops: list[Drop], state: Doc) -> Verdict:
    """Every promise that was to be kept, and where it was not."""
    _, documents = place.ask("list")
    sales = {drop.external_id: drop for drop in reversed(drops) if drop.what == "sale"}
    return {
        "each sale once": _each_sale_once(sales, documents, state),
        "numbers exact": _exact(place, sales, state),
        "journal order": _in_order(documents, state),
        "asked before a resend": _asked_before_resend(state),
        "refusals": _refused(drops, documents),
    } | of_intake(place, drops, documents)


def of_intake(place: Place, drops: list[Drop], documents: list[Doc], *, delivered: bool = True) -> Verdict:
    """What can be said without a look at the sandbox; with `delivered`, nothing waits any more either."""
    return {
        "evidence": _evidence(place, drops, documents),
        "nothing left over": _left_over(place, drops),
        "flags": _flags(place, drops, delivered=delivered),
        "verify": _sound(place, delivered=delivered),
    }


def _each_sale_once(sales: dict[str | None, Drop], documents: list[Doc], state: Doc) -> list[str]:
    """One row at the sandbox for each sale, none besides; the journal knows it as delivered, under the right id."""
    rows = Counter(row["external_id"] for row in state["transactions"])
    wrong = [f"{name}: {rows[name]} rows at the sandbox" for name in sales if rows[name] != 1]
    wrong += [f"{name}: at the sandbox, but no till wrote it" for name in rows if name not in sales]
    created = state["counts"].get("transactions_created", 0)
    if created != len(sales):
        wrong.append(f"{created} rows were created at the sandbox for {len(sales)} sales")
    ids = {row["external_id"]: row["id"] for row in state["transactions"]}
    known = {doc["external_id"]: doc for doc in documents if doc["state"] != "invalid"}
    for name in sales:
        doc = known.get(name, {})
        if doc.get("state") != "delivered" or doc.get("omneo_id") != ids.get(name):
            wrong.append(f"{name}: the journal says {doc.get('state')} {doc.get('omneo_id')}, not {ids.get(name)}")
    return wrong


def _exact(place: Place, sales: dict[str | None, Drop], state: Doc) -> list[str]:
    """What was posted is what the till wrote, as numbers, without what is ours and without nulls; and the witness."""
    wrong = []
    with contextlib.closing(sqlite3.connect(f"{place.journal.as_uri()}?mode=ro", uri=True)) as db:
        (identity,) = db.execute("SELECT json_extract(facts, '$.journal') FROM log WHERE seq = 1").fetchone()
        entries = db.execute("SELECT external_id, seq, lower(hex(digest)) FROM log WHERE kind = 'sale'").fetchall()
    witness = {name: {"journal": identity, "seq": seq, "digest": digest} for name, seq, digest in entries}
    for row in state["transactions"]:
        drop = sales.get(row["external_id"])
        if drop is not None and row["posted"] != (wanted := _as_posted(drop.body, witness.get(drop.external_id))):
            names = [name for name in wanted | row["posted"] if wanted.get(name) != row["posted"].get(name)]
            wrong.append(f"{row['external_id']}: differs from what the till wrote in {names}")
    return wrong


def _as_posted(body: bytes, witness: Doc | None) -> Doc:
    doc = json.loads(body, parse_float=Decimal)
    doc = {name: value for name, value in doc.items() if name not in OURS and value is not None}
    doc["items"] = [{name: value for name, value in line.items() if value is not None} for line in doc["items"]]
    moment = datetime.fromisoformat(doc["transacted_at"])
    if moment.tzinfo:
        doc["transacted_at"] = moment.astimezone(ZoneInfo(doc["timezone"])).strftime("%Y-%m-%d %H:%M:%S")
    doc["meta"] = doc.get("meta", {}) | {"omneo_journal": witness}
    return {"systems": ["POS"]} | doc


def posts(state: Doc) -> list[Doc]:
    return [entry for entry in state["journal"] if entry["method"] == "POST" and entry["external_id"] is not None]


def _in_order(documents: list[Doc], state: Doc) -> list[str]:
    """The order in which sales were first applied at the sandbox is the journal's."""
    applied = list(dict.fromkeys(entry["external_id"] for entry in posts(state) if entry["applied"]))
    seqs = {doc["external_id"]: doc["seq"] for doc in documents if doc["state"] != "invalid"}
    order = [seqs.get(name, 0) for name in applied]
    late = [name for name, seq, before in zip(applied[1:], order[1:], order, strict=False) if seq < before]
    return [f"{len(late)} sales were created out of journal order, the first of them {late[0]}"] if late else []


def _asked_before_resend(state: Doc) -> list[str]:
    """Whatever may have reached Omneo was looked up, and not found, before it was sent again."""
    wrong: list[str] = []
    last: dict[str, str | None] = {}
    for entry in state["journal"]:
        name, path, fault = entry["external_id"], entry["path"], entry["fault"]
        if entry["method"] == "GET" and path.startswith("/transactions/external/"):
            if entry["status"] == 404 and entry["answered"]:
                last.pop(path.removeprefix("/transactions/external/"), None)
        elif entry["method"] == "POST" and name is not None:
            if name in last and last[name] not in NO_FOR_SURE and "/" not in name:  # that is asked by a filter
                wrong.append(f"{name}: sent again after {last[name] or 'a whole answer'} without asking first")
            last[name] = fault
    return wrong


def _refused(drops: list[Drop], documents: list[Doc]) -> list[str]:
    """Sales of a customer whom Omneo doesn't know are refused, and nothing else is."""
    wanted = {drop.external_id for drop in drops if drop.what == "refused"}
    got = {doc["external_id"] for doc in documents if doc["state"] == "refused"}
    return [f"{name}: refused or not, against what is right" for name in sorted(wanted ^ got, key=str)]


def _evidence(place: Place, drops: list[Drop], documents: list[Doc]) -> list[str]:
    """Each broken or conflicting file is set aside with the reason, and is in the journal byte by byte."""
    wrong = []
    states = {doc["seq"]: doc["state"] for doc in documents}
    with contextlib.closing(sqlite3.connect(f"{place.journal.as_uri()}?mode=ro", uri=True)) as db:
        bodies = dict(db.execute("SELECT seq, bytes FROM body"))
    for drop in drops:
        if drop.what not in ASIDE:
            continue
        file = place.spool / "rejected" / drop.path
        words = file.with_name(file.name + ".error.json")
        if not file.is_file() or file.read_bytes() != drop.body:
            wrong.append(f"{drop.path} ({drop.what}) is not in rejected/ as it was written")
        elif (
            not words.is_file()
            or {"file", "reason", "problems", "seq"} - (told := json.loads(words.read_bytes())).keys()
        ):
            wrong.append(f"{drop.path}: no word beside it about why it was set aside")
        elif states.get(told["seq"]) != "invalid":
            wrong.append(f"{drop.path}: entry {told['seq']} of the journal is {states.get(told['seq'])}, not invalid")
        elif len(drop.body) <= LIMIT and bodies.get(told["seq"]) != drop.body:
            wrong.append(f"{drop.path}: entry {told['seq']} of the journal does not hold its bytes")
    invalid = sum(1 for state in states.values() if state == "invalid")
    distinct = {drop.body for drop in drops if drop.what in {"broken", "conflict"}}
    if invalid != len(distinct):
        wrong.append(f"{invalid} invalid entries in the journal for {len(distinct)} different bad files")
    return wrong


def _left_over(place: Place, drops: list[Drop]) -> list[str]:
    """Nothing is left in the spool; in rejected/ there is only what belongs there; nothing half done anywhere."""
    wrong = [f"{name}: still in the spool" for name in waiting_files(place.spool)]
    bad = {drop.path for drop in drops if drop.what in ASIDE}
    allowed = bad | {f"{name}.error.json" for name in bad}
    aside = place.spool / "rejected"
    there = {str(path.relative_to(aside)) for path in aside.rglob("*") if path.is_file()}
    wrong += [f"rejected/{name} does not belong there" for name in sorted(there - allowed)]
    books = {"journal.db", "journal.db.lock", "journal.db.keep.lock"}
    books |= {"delivery.db", "delivery.db.lock", "delivery.db.ballast"}
    books |= {"journal.db.format-1"}  # the copy that a migration keeps
    wrong += [
        f"{path.name}: left beside the books" for path in place.journal.parent.iterdir() if path.name not in books
    ]
    return wrong


def _flags(place: Place, drops: list[Drop], *, delivered: bool) -> list[str]:
    """One flag for each different bad file and each refused sale; the sandbox's skewed clock; nothing else."""
    got = Counter(flag["flag"] for flag in place.ask("flags")[1])
    wanted = {
        "invalid": len({drop.body for drop in drops if drop.what == "broken"}),
        "conflict": len({drop.body for drop in drops if drop.what == "conflict"}),
        "sale_refused": sum(1 for drop in drops if drop.what == "refused" and delivered),
    }
    got.pop("clock_skew", None)
    return [
        f"{got[name]} open flags {name}, expected {wanted.get(name, 0)}"
        for name in sorted(got | wanted)
        if got[name] != wanted.get(name, 0)
    ]


def _sound(place: Place, *, delivered: bool) -> list[str]:
    """`verify` finds nothing, and the day could be closed but for the flags."""
    code, found = place.ask("verify")
    wrong = [] if code == 0 and found[0]["ok"] else [f"verify: exit {code}, {found[0]['problems'][:3]}"]
    _, (close,) = place.ask("close-check")
    counts = ("waiting", "held", "missing") if delivered else ("held", "missing")
    return wrong + [f"close-check: {close[name]} {name}" for name in counts if close[name]]
