"""
The campaign: mixed files, both real programs killed again and again, a sandbox that fails a third of requests.

    python tests/campaign.py [--seed N] [--files 1000] [--kills 10] [--share 0.33] [--plant BUG] [--keep]

One seed gives the same files, the same moments and the same dice at the sandbox. At the end the faults are switched
off, everything drains, and a judge that shares no code with the programs says whether every sale is at the sandbox
exactly once, digit by digit, in journal order. With `--plant` a bug is planted in one program (tests/planted.py), and
the campaign has to find it.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

Doc = dict[str, Any]

LIMIT = 1024 * 1024  # contract, section 2
OURS = {"kind", "terminal", "sequence", "redemption_external_id", "apply_redemption"}  # contract, section 8
NO_FOR_SURE = {"throttle", "unauthorized", "forbidden", "status"}  # answers that say: not done; no doubt to look into
LOST = {"drop_before", "drop_after", "hang", "hang_after", "trickle", "truncate"}  # the answer never came, or in part
TILLS = ("", "till-1", "till-2", "Kasse 3", "レジ-4")
ZONES = ("Australia/Melbourne", "Asia/Tokyo", "Europe/Berlin")
CUSTOMERS = (
    {},
    {},
    {"profile_id": "jane@example.com", "profile_id_handle": "email"},
    {"profile_id": "omar@example.com", "profile_id_handle": "email"},
    {"profile_id": "6000000004", "profile_id_handle": "loyalty-card"},
    {"profile_id": "6000000003", "profile_id_handle": "loyalty-card"},
    {"profile_id": "92a7996b-abb6-4c9c-a845-9aaf8202fab6"},
)
AMOUNTS = (
    "0.10",
    "149.95",
    "1e2",
    "0.30",
    "19.9",
    "1E+3",
    "1234567890123456789012345678901.23",
    "0.000000000000000000000000000000001",
    "7",
    "0.07",
    "5e-1",
    "99.990",
)
_WIDE = Context(prec=120)
SHARES = {"sale": 56, "refused": 2, "repeat": 15, "conflict": 7, "conflict again": 2, "broken": 17, "broken again": 1}


# -- the files ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drop:
    """One file that a till writes."""

    at: float  # seconds after the start
    what: str  # one of SHARES
    path: str  # below the spool
    body: bytes
    external_id: str | None = None
    in_place: bool = False  # written under its last name, half now and half later


class Tills:
    """Writes documents as tills do, each a little differently; remembers what it wrote."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.numbers: Counter[str] = Counter()
        self.sales: list[tuple[float, Doc]] = []
        self.conflicts: list[tuple[float, Doc]] = []
        self.broken: list[bytes] = []
        self.count = 0

    def drop(self, what: str, at: float) -> Drop:
        """The next file. What needs an earlier one to refer to is a sale where there is none yet."""
        self.count += 1
        old = [doc for then, doc in self.sales if at - then > 1.0]  # settled which of two conflicting ones came first
        old_conflicts = [doc for then, doc in self.conflicts if at - then > 1.0]
        doc: Doc | None = None
        if what == "repeat" and self.sales:
            doc = self.dice.choice(self.sales[-200:])[1]
        elif what == "conflict" and old:
            doc = self.dice.choice(old) | {"staff_id": f"C-{self.count}"}
            self.conflicts.append((at, doc))
        elif what == "conflict again" and old_conflicts:
            doc = self.dice.choice(old_conflicts)
        elif what == "broken" or (what == "broken again" and not self.broken):
            return self._broken(at)
        elif what == "broken again":
            return Drop(at, what, self._path(), self.dice.choice(self.broken))
        elif what == "refused":
            nobody = {"profile_id": f"nobody-{self.count}@example.com", "profile_id_handle": "email"}
            doc = self._unnumbered_sale() | nobody
        if doc is None:
            what, doc = "sale", self._sale()
            self.sales.append((at, doc))
        in_place = what in {"sale", "repeat"} and self.dice.random() < 0.12
        body = spell(doc, self.dice, plain=what == "sale").encode()
        return Drop(at, what, self._path(), body, doc["external_id"], in_place=in_place)

    def _path(self) -> str:
        till = self.dice.choice(TILLS)
        name = f"{self.dice.choice(('sale', 'doc ü', 'R'))}-{self.count:05d}.json"
        return f"{till}/{name}" if till else name

    def _sale(self) -> Doc:
        dice = self.dice
        terminal = f"T{dice.randrange(4)}"
        self.numbers[terminal] += 1
        back = dice.random() < 0.12
        prices = [Decimal(dice.choice(AMOUNTS)) for _ in range(dice.randrange(1, 4))]
        lines = [_line(price, dice, back=back) for price in prices]
        total = _exact_sum(prices)
        zone = dice.choice(ZONES)
        moment = datetime(
            2025, 6, 15, dice.randrange(24), dice.randrange(60), dice.randrange(60), tzinfo=ZoneInfo(zone)
        )
        local = moment.strftime("%Y-%m-%d %H:%M:%S") if dice.random() < 0.7 else moment.isoformat()
        doc = {
            "kind": "sale",
            "external_id": self._external_id(),
            "terminal": terminal,
            "sequence": self.numbers[terminal],
            "total": total.copy_negate() if back else total,  # a plain minus would round
            "transacted_at": local,
            "timezone": zone,
            "items": lines,
            "receipt_ref": f"R{self.count:06d}",
            **dice.choice(CUSTOMERS),
        }
        if back:
            doc["linked_receipt_ref"] = f"R{dice.randrange(1, self.count + 1):06d}"
        if dice.random() < 0.3:
            doc["meta"] = {"exact": Decimal(dice.choice(AMOUNTS)), "none": None, "nested": [Decimal("1.10"), "é"]}
        if dice.random() < 0.2:
            doc |= {"staff_id": None, "x_unknown_field": "passes through", "location_id": "MEL01"}
        return doc

    def _external_id(self) -> str:
        odd = ("MEL01", "MEL 01", "ÄÖ-é", "a/b", "100%")  # as tills really name things
        return f"{self.dice.choice(odd)}-{self.count:05d}-{self.dice.randrange(10**6)}"

    def _broken(self, at: float) -> Drop:
        good = self._unnumbered_sale()
        text = spell(good, self.dice, plain=True)
        bad = self.dice.choice(
            (
                text[: self.dice.randrange(1, len(text) - 1)],
                text.replace('"items"', '"rate":NaN,"items"', 1),
                text.replace('"kind"', f'"total":{self.count},"kind"', 1),
                spell({name: value for name, value in good.items() if name != "total"}, self.dice),
                spell(good | {"total": "12.50"}, self.dice),
                spell(good | {"timezone": "Mars/Olympus"}, self.dice),
                spell(good | {"kind": f"gift-{self.count}"}, self.dice),
                f"[{text}]",
                text + "}",
                text.replace('"items"', '"half":"\\ud800","items"', 1),
                "",
                f"\x00{self.count}",
            )
        )
        body = bad.encode()
        if self.dice.random() < 0.03:
            body = spell(good | {"meta": {"much": "x" * (LIMIT + self.count)}}, self.dice).encode()
        elif self.dice.random() < 0.06:
            body = text.encode("utf-16")
        self.broken.append(body)
        return Drop(at, "broken", self._path(), body, None, in_place=self.dice.random() < 0.2)

    def _unnumbered_sale(self) -> Doc:
        doc = self._sale()
        self.numbers[doc["terminal"]] -= 1
        return {name: value for name, value in doc.items() if name not in {"terminal", "sequence"}}


def _line(price: Decimal, dice: random.Random, *, back: bool) -> Doc:
    line: Doc = {"name": dice.choice(("Linen Shirt", "抹茶ケーキ", 'Crème "brûlée"')), "price_sell": price}
    return line | {"price_current": price, "quantity": -1 if back else 1, "sku": f"S{dice.randrange(1000)}"}


def _exact_sum(prices: list[Decimal]) -> Decimal:
    """Decimal's own sum would round at 28 digits."""
    scale = min(int(price.as_tuple().exponent) for price in prices)
    whole = sum(int(price.scaleb(-scale, context=_WIDE)) for price in prices)
    return Decimal(whole).scaleb(scale, context=_WIDE)


def spell(value: Any, dice: random.Random, *, plain: bool = False) -> str:
    """JSON by hand: members in any order, numbers spelled in any way, unless `plain`."""
    if isinstance(value, dict):
        members = list(value.items())
        if not plain:
            dice.shuffle(members)
        return "{" + ",".join(f"{json.dumps(name)}:{spell(child, dice, plain=plain)}" for name, child in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(spell(child, dice, plain=plain) for child in value) + "]"
    if isinstance(value, Decimal) or (isinstance(value, int) and not isinstance(value, bool)):
        number = Decimal(value)
        point = format(number, "f")
        longer = point + "0" if "." in point else point + ".0"
        return str(value) if plain else dice.choice((str(value), point, longer, format(number, "E")))
    return json.dumps(value, ensure_ascii=dice.random() < 0.5)


def make_drops(dice: random.Random, count: int, seconds: float) -> list[Drop]:
    """So many files in bursts over so many seconds."""
    moments: list[float] = []
    while len(moments) < count:
        moments += [dice.uniform(0, seconds)] * dice.choice((1, 1, 2, 5, 20, 60))
    tills = Tills(dice)
    kinds = dice.choices(list(SHARES), list(SHARES.values()), k=count)
    return [tills.drop(what, at) for what, at in zip(kinds, sorted(moments[:count]), strict=True)]


# -- the programs -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Program:
    """One of the two programs (or the sandbox) as a process: started, killed, started again."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0
    complaints: list[str] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.env, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        assert self.process is not None
        self.look()
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def look(self) -> None:
        """Still alive? A program that ended by itself is a finding; as systemd would, start it again."""
        if self.process is not None and self.process.poll() not in {None, -signal.SIGKILL}:
            tail = self.log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            self.complaints.append(f"{self.name} ended by itself with code {self.process.returncode}: {tail}")
            self.start()

    def stop(self) -> None:
        """SIGTERM, as at a shutdown: it has to end in good order."""
        assert self.process is not None
        self.look()
        self.process.terminate()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "none: it had to be killed"
        if code != 0:
            self.complaints.append(f"{self.name} ended with code {code} after SIGTERM")


class Place:
    """A directory with a spool and two books, and the programs over it."""

    def __init__(self, root: Path, plant: str | None) -> None:
        self.root, self.spool = root, root / "spool"
        self.journal, self.delivery = root / "books" / "journal.db", root / "books" / "delivery.db"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("OMNEO_")}
        self.env |= {"OMNEO_JOURNAL_DB": str(self.journal), "OMNEO_JOURNAL_SPOOL": str(self.spool)}
        self.env |= {"OMNEO_TOKEN": "sandbox", "RES_OPTIONS": ""}
        self.plant = plant

    def command(self, program: str, *arguments: str) -> list[str]:
        if self.plant:
            return [sys.executable, "-P", str(Path(__file__).with_name("planted.py")), self.plant, program, *arguments]
        return [sys.executable, "-P", "-c", f"from {program}.cli import main; main()", *arguments]

    def program(self, package: str, *arguments: str) -> Program:
        return Program(package, self.command(package, *arguments), self.env, self.root / f"{package}.log")

    def ask(self, *arguments: str) -> tuple[int, list[Doc]]:
        """A command of omneo-journal with --json: its exit code and what it said, numbers exact."""
        done = subprocess.run(
            self.command("journal", *arguments, "--json"), env=self.env, capture_output=True, timeout=60, check=False
        )
        if done.stderr:
            raise RuntimeError(done.stderr.decode("utf-8", "replace"))
        return done.returncode, [json.loads(line, parse_float=Decimal) for line in done.stdout.splitlines()]


class Sandbox:
    """The stand-in Omneo in a process of its own, and its control desk."""

    def __init__(self, root: Path) -> None:
        code = "from forwarder.sandbox.serve import serve; serve(0, announce=lambda url: print(url, flush=True))"
        self.process = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, cwd=root)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()
        self.host = self.url.split("/")[2]

    def desk(self, method: str, route: str, body: Any = None) -> Any:
        """One request to the control desk; the answer's numbers stay exact."""
        line = http.client.HTTPConnection(self.host, timeout=30)
        with contextlib.closing(line):
            line.request(method, f"/_sandbox{route}", None if body is None else json.dumps(body))
            raw = line.getresponse().read()
        return json.loads(raw, parse_float=Decimal) if raw else None

    def fail(self, seed: int, share: float, seconds: float) -> None:
        """From now on a share of requests goes wrong, in every way that the sandbox knows."""
        rule = {"mode": "any", "share": share, "seed": seed, "seconds": seconds, "interval": 0.01}
        self.desk("POST", "/faults", rule)


# -- the course of events -----------------------------------------------------------------------------------------

Action = tuple[float, str, Any]  # when, what, with what


def plan(dice: random.Random, drops: list[Drop], kills: int, trouble: float) -> list[Action]:
    """Everything that happens, by the clock: files come, programs are killed and started again."""
    actions: list[Action] = [(drop.at, "drop", drop) for drop in drops]
    actions += [(drop.at + dice.uniform(0.05, 0.9), "finish", drop) for drop in drops if drop.in_place]
    during = [drop.at + dice.expovariate(1 / 0.01) for drop in drops]  # while it works on what has just come
    spread = [dice.uniform(0.5, trouble * 0.9) for _ in range(1000)]
    for name, moments in (("journal", during), ("forwarder", spread)):
        dice.shuffle(moments)
        for at in _apart(moments, kills):
            actions += [(at, "kill", name), (at + dice.uniform(0.02, 0.8), "start", name)]
    return sorted(actions, key=lambda action: action[0])


def _apart(moments: list[float], count: int, least: float = 1.2) -> list[float]:
    """The first so many moments of which no two are close together; what is missing comes after the last."""
    kept: list[float] = []
    for moment in moments:
        if len(kept) < count and all(abs(moment - other) >= least for other in kept):
            kept.append(moment)
    while len(kept) < count:
        kept.append(max(kept, default=0.0) + least)
    return kept


def play(actions: list[Action], place: Place, programs: dict[str, Program]) -> None:
    """Let it all happen, in real time."""
    began = time.monotonic()
    for at, what, thing in actions:
        time.sleep(max(0.0, began + at - time.monotonic()))
        match what:
            case "drop":
                write(place.spool, thing)
            case "finish":
                with contextlib.suppress(FileNotFoundError), (place.spool / thing.path).open("r+b") as file:
                    file.seek(len(thing.body) // 2)
                    file.write(thing.body[len(thing.body) // 2 :])
            case "kill":
                programs[thing].kill()
            case "start":
                programs[thing].start()


def write(spool: Path, drop: Drop) -> None:
    """As the contract asks, by rename; or in place, the first half of it."""
    path = spool / drop.path
    path.parent.mkdir(exist_ok=True)
    if drop.in_place:
        path.write_bytes(drop.body[: len(drop.body) // 2])
        return
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(drop.body)
    draft.rename(path)


def waiting_files(spool: Path) -> list[str]:
    """Everything under the spool that is not in rejected/."""
    found = [path.relative_to(spool) for path in spool.rglob("*") if not path.is_dir()]
    return sorted(str(path) for path in found if path.parts[0] != "rejected")


def drained(place: Place, programs: dict[str, Program], until: float) -> bool:
    """Wait until the spool is empty and no document waits."""
    while time.monotonic() < until:
        for program in programs.values():
            program.look()
        if not waiting_files(place.spool) and place.ask("close-check")[1][0]["waiting"] == 0:
            return True
        time.sleep(0.3)
    return False


# -- the judge ----------------------------------------------------------------------------------------------------


def judge(place: Place, drops: list[Drop], state: Doc) -> list[str]:
    """Everything that is wrong, in words; empty when all is as it was promised."""
    _, documents = place.ask("list")
    sales = {drop.external_id: drop for drop in reversed(drops) if drop.what == "sale"}
    wrong = _each_sale_once(sales, documents, state)
    wrong += _exact(sales, state) + _in_order(documents, state) + _asked_before_resend(state)
    wrong += _refused(drops, documents) + _evidence(place, drops, documents)
    wrong += _left_over(place, drops) + _flags(place, drops) + _sound(place)
    return wrong


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


def _exact(sales: dict[str | None, Drop], state: Doc) -> list[str]:
    """What was posted is what the till wrote, as numbers, without what is ours and without nulls."""
    wrong = []
    for row in state["transactions"]:
        drop = sales.get(row["external_id"])
        if drop is not None and row["posted"] != (wanted := _as_posted(drop.body)):
            names = [name for name in wanted | row["posted"] if wanted.get(name) != row["posted"].get(name)]
            wrong.append(f"{row['external_id']}: differs from what the till wrote in {names}")
    return wrong


def _as_posted(body: bytes) -> Doc:
    doc = json.loads(body, parse_float=Decimal)
    doc = {name: value for name, value in doc.items() if name not in OURS and value is not None}
    doc["items"] = [{name: value for name, value in line.items() if value is not None} for line in doc["items"]]
    moment = datetime.fromisoformat(doc["transacted_at"])
    if moment.tzinfo:
        doc["transacted_at"] = moment.astimezone(ZoneInfo(doc["timezone"])).strftime("%Y-%m-%d %H:%M:%S")
    return {"systems": ["POS"]} | doc


def _posts(state: Doc) -> list[Doc]:
    return [entry for entry in state["journal"] if entry["method"] == "POST" and entry["external_id"] is not None]


def _in_order(documents: list[Doc], state: Doc) -> list[str]:
    """The order in which sales were first applied at the sandbox is the journal's."""
    applied = list(dict.fromkeys(entry["external_id"] for entry in _posts(state) if entry["applied"]))
    seqs = {doc["external_id"]: doc["seq"] for doc in documents if doc["state"] != "invalid"}
    order = [seqs.get(name, 0) for name in applied]
    late = [name for name, seq, before in zip(applied[1:], order[1:], order, strict=False) if seq < before]
    return [f"{len(late)} sales were created out of journal order, the first of them {late[0]}"] if late else []


def _asked_before_resend(state: Doc) -> list[str]:
    """Whatever may have reached Omneo was looked up, and not found, before it was sent again."""
    wrong, last = [], {}
    for entry in state["journal"]:
        name = entry["external_id"]
        path = entry["path"]
        if entry["method"] == "GET" and path.startswith("/transactions/external/"):
            if entry["status"] == 404 and (entry["fault"] in {None, "skew"} or entry["answered"]):
                last.pop(path.removeprefix("/transactions/external/"), None)
        elif entry["method"] == "POST" and name is not None:
            if name in last and last[name] not in NO_FOR_SURE and "/" not in name:
                wrong.append(f"{name}: sent again after {last[name] or 'a whole answer'} without asking first")
            last[name] = entry["fault"]
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
        if drop.what not in {"broken", "broken again", "conflict"}:
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
    bad = {drop.path for drop in drops if drop.what in {"broken", "broken again", "conflict"}}
    allowed = bad | {f"{name}.error.json" for name in bad}
    aside = place.spool / "rejected"
    there = {str(path.relative_to(aside)) for path in aside.rglob("*") if path.is_file()}
    wrong += [f"rejected/{name} does not belong there" for name in sorted(there - allowed)]
    books = {"journal.db", "journal.db.lock", "delivery.db", "delivery.db.lock"}
    wrong += [
        f"{path.name}: left beside the books" for path in place.journal.parent.iterdir() if path.name not in books
    ]
    return wrong


def _flags(place: Place, drops: list[Drop]) -> list[str]:
    """One flag for each different bad file and each refused sale; the sandbox's skewed clock; nothing else."""
    got = Counter(flag["flag"] for flag in place.ask("flags")[1])
    wanted = {
        "invalid": len({drop.body for drop in drops if drop.what == "broken"}),
        "conflict": len({drop.body for drop in drops if drop.what == "conflict"}),
        "sale_refused": sum(1 for drop in drops if drop.what == "refused"),
    }
    got.pop("clock_skew", None)
    return [
        f"{got[name]} open flags {name}, expected {wanted.get(name, 0)}"
        for name in sorted(got | wanted)
        if got[name] != wanted.get(name, 0)
    ]


def _sound(place: Place) -> list[str]:
    """`verify` finds nothing, and the day could be closed but for the flags."""
    code, found = place.ask("verify")
    wrong = [] if code == 0 and found[0]["ok"] else [f"verify: exit {code}, {found[0]['problems'][:3]}"]
    _, (close,) = place.ask("close-check")
    return wrong + [f"close-check: {close[name]} {name}" for name in ("waiting", "held", "missing") if close[name]]


# -- what it came to ----------------------------------------------------------------------------------------------


def figures(drops: list[Drop], state: Doc, before: Doc, programs: dict[str, Program], took: dict[str, float]) -> None:
    """The table."""
    kinds = Counter(drop.what for drop in drops)
    journal = state["journal"]
    faults = Counter(entry["fault"] for entry in journal if entry["fault"])
    posts = Counter(entry["external_id"] for entry in _posts(state))
    asked = [entry for entry in journal if entry["method"] == "GET" and entry["path"].startswith("/transactions")]
    told = [entry for entry in asked if entry["answered"]]
    under_fire = before["counts"].get("transactions_created", 0)
    rows = [
        ("files", f"{len(drops)}: " + ", ".join(f"{count} {what}" for what, count in kinds.most_common())),
        ("written in place", sum(drop.in_place for drop in drops)),
        ("killed", ", ".join(f"{program.name} {program.kills} times" for program in programs.values())),
        ("requests at the sandbox", len(journal)),
        ("  answered as Omneo would", sum(entry["answered"] for entry in journal)),
        (
            "  gone wrong",
            f"{sum(faults.values())} ({sum(faults.values()) / max(1, before['requests']):.0%} under fire)",
        ),
        ("  applied, the answer lost", sum(1 for e in journal if e["applied"] and not e["answered"])),
        ("faults by mode", ", ".join(f"{mode} {count}" for mode, count in sorted(faults.items()))),
        ("sales at the sandbox", f"{state['counts'].get('transactions_created', 0)}, {under_fire} of them under fire"),
        ("  sent more than once", sum(1 for count in posts.values() if count > 1)),
        ("  updated by a resend", state["counts"].get("transactions_updated", 0)),
        ("look-ups answered", f"{len(told)} of {len(asked)}"),
        ("  found, so not resent", sum(1 for entry in told if entry["status"] == 200)),
        ("  not there, so sent", sum(1 for entry in told if entry["status"] == 404)),
        ("seconds", ", ".join(f"{name} {seconds:.1f}" for name, seconds in took.items())),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--seed", type=int, default=None, help="the same files, moments and dice again")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10, help="of each program")
    parser.add_argument("--share", type=float, default=0.33, help="of requests that go wrong")
    parser.add_argument("--timeout", type=float, default=0.5, help="of one request, seconds")
    parser.add_argument("--trouble", type=float, default=None, help="seconds until the faults are switched off")
    parser.add_argument("--deadline", type=float, default=None, help="seconds for all of it")
    parser.add_argument("--plant", metavar="BUG", help="plant a bug (tests/planted.py): it has to be found")
    parser.add_argument("--hurry", dest="plant", action="store_const", const="hurry", help="a tenth of the back-off")
    parser.add_argument("--keep", action="store_true", help="leave the directory for a look")
    chosen = parser.parse_args()
    chosen.seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    chosen.trouble = max(8.0, 0.15 * chosen.files) if chosen.trouble is None else chosen.trouble
    chosen.deadline = chosen.trouble + 45 if chosen.deadline is None else chosen.deadline
    return chosen


def campaign(chosen: argparse.Namespace, root: Path) -> list[str]:
    """One campaign from the first file to the verdict."""
    began = time.monotonic()
    dice = random.Random(chosen.seed)
    drops = make_drops(dice, chosen.files, chosen.trouble * 0.5)
    actions = plan(dice, drops, chosen.kills, chosen.trouble)
    place, sandbox = Place(root, chosen.plant), Sandbox(root)
    init = subprocess.run(place.command("journal", "init"), env=place.env, check=True, capture_output=True)
    assert init.returncode == 0
    run = ("run", "--url", sandbox.url, "--rate", "0", "--timeout", str(chosen.timeout))
    programs = {"journal": place.program("journal", "ingest"), "forwarder": place.program("forwarder", *run)}
    try:
        sandbox.fail(chosen.seed, chosen.share, 4 * chosen.timeout)
        for program in programs.values():
            program.start()
        play(actions, place, programs)
        dropped = time.monotonic() - began
        drained(place, programs, began + chosen.trouble)
        before = sandbox.desk("GET", "/counts")
        sandbox.desk("DELETE", "/faults")
        calm = time.monotonic() - began
        empty = drained(place, programs, began + chosen.deadline)
        for program in programs.values():
            program.stop()
        ended = time.monotonic() - began
        state = sandbox.desk("GET", "/state")
    finally:
        for process in [program.process for program in programs.values()] + [sandbox.process]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
    took = {"events": dropped, "under fire": calm, "to drain then": ended - calm, "in all": ended}
    figures(drops, state, before, programs, took)
    wrong = [] if empty else [f"not everything was settled after {chosen.deadline:.0f} s"]
    for program in programs.values():
        wrong += program.complaints
        if "Traceback" in program.log.read_text("utf-8", "replace"):
            wrong.append(f"{program.name} printed a traceback")
    return wrong + judge(place, drops, state)


def main() -> int:
    chosen = options()
    root = Path(tempfile.mkdtemp(prefix="campaign-"))
    print(f"seed {chosen.seed}" + (f", planted: {chosen.plant}" if chosen.plant else ""), flush=True)
    try:
        wrong = campaign(chosen, root)
    finally:
        if chosen.keep:
            print(f"left in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    for reason in wrong[:20]:
        print(f"WRONG: {reason}")
    if len(wrong) > 20:
        print(f"WRONG: … and {len(wrong) - 20} more")
    again = f"--seed {chosen.seed} --files {chosen.files} --kills {chosen.kills} --share {chosen.share}"
    print(f"repeat it with: {again}" if wrong else "nothing was lost, nothing came twice, nothing was changed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
