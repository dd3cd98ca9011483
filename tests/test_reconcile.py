"""A day held against Omneo: every planted difference is found, by its kind and field, and none that isn't there."""

import json
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redeeming import AUTHORIZED
from standin import Listen, Omneo, Store, at_once, encode, execute, http, sale, says

from forwarder import asking, compare, decide, reconcile, resend, status, theirs
from forwarder.books import Books
from forwarder.link import Credentials, Link, check_url
from forwarder.replay import Replay, step
from forwarder.sandbox.customers import JANE, OMAR, WEI
from forwarder.wire import Wire
from journal import archive, log, reconciled, redact, report, report_page, report_text, story
from journal.day import Days

DATE = datetime.now(UTC).astimezone().date()
TODAY = Days(DATE - timedelta(days=1), DATE + timedelta(days=1), None)  # whatever midnight comes in between
WHERE = "MEL01"
Row = dict[str, Any]


def drain(run: Replay) -> None:
    for _ in range(20_000):
        if step(run) is None:
            run.books.flush()
            return
    raise AssertionError("something still waits")


@dataclass
class Shop:
    """A store, and what is to be found of it."""

    store: Store
    omneo: Omneo
    token: Path
    wire: Wire
    dice: random.Random = field(default_factory=lambda: random.Random(7))
    made: int = 0
    expected: set[tuple[Any, ...]] = field(default_factory=set)
    untouched: dict[str, Row] = field(default_factory=dict)  # documents that nothing was planted in

    # -- a day ------------------------------------------------------------------------------------------------------

    def name(self, letter: str) -> str:
        self.made += 1
        return f"{letter}-{self.made:05d}"

    def sale(self, **more: Any) -> Row:
        """Many ways in which a till can write one."""
        dice = self.dice
        lines = [
            {
                "name": f"Item {number}",
                "sku": dice.choice(["A", "B", None]),
                "quantity": dice.choice([1, 2, Decimal("0.5")]),
                "price_current": (price := Decimal(dice.randrange(100, 9000)) / 100),
                "price_sell": price,
            }
            for number in range(dice.randint(1, 3))
        ]
        who = dice.choice(
            [
                {},
                {"profile_id": WEI},
                {"profile_id": "Jane@example.com", "profile_id_handle": "email"},
                {"profile_id": "6000000002", "profile_id_handle": "loyalty-card"},
            ]
        )
        fields: Row = {
            "total": sum((Decimal(str(line["quantity"])) * line["price_sell"] for line in lines), Decimal(0)),
            "items": lines,
            "transacted_at": f"{DATE} {dice.randint(8, 17):02d}:{dice.randint(0, 59):02d}:00",
            "timezone": dice.choice(["Australia/Melbourne", "UTC"]),
            "terminal": f"till-{dice.randint(1, 3)}",
            "currency": dice.choice(["AUD", "AUD", "NZD"]),
            "location_id": WHERE,
        }
        if dice.random() < 0.5:
            fields |= {"receipt_ref": self.name("T"), "is_void": dice.random() < 0.1, "rounding": Decimal("0.02")}
        return sale(self.name("S"), **fields | who | more)

    def spending(self, kind: str, **more: Any) -> Row:
        """A redemption, or what undoes one."""
        said = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        own: Row = {"terminal": f"till-{self.dice.randint(1, 3)}", "issued_at": said, "timezone": "UTC"}
        if kind == "redemption" and "benefit_id" not in more:
            own |= {"amount": Decimal(self.dice.randint(1, 9)), "strategies": ["rewards"]}
        if kind == "redemption":
            own |= {"profile_id": WEI, "location_id": WHERE}
        return {"kind": kind, "external_id": self.name(kind[0].upper())} | own | more

    def day(self, sales: int, spendings: int) -> None:
        """Documents of every kind, all of them delivered, and some that Omneo refuses or that never leave."""
        rows: list[Row] = []
        for number in range(spendings):
            rows.append(self.spending("redemption"))
            name = rows[-1]["external_id"]
            match number % 5:
                case 0:
                    rows.append(self.sale(redemption_external_id=name, apply_redemption="proportional"))
                case 1:
                    rows.append(self.sale(redemption_external_id=name))
                case 2:
                    rows.append(self.spending("return", redemption_external_id=name, amount=Decimal(1)))
                case 3:
                    self.deliver(*rows)  # else the pair meets here
                    rows = [self.spending("reversal", redemption_external_id=name)]
        rows += [self.sale() for _ in range(sales)]
        self.deliver(*rows)

    def deliver(self, *documents: Row, **options: Any) -> None:
        with self.store.forwarding(self.omneo.url, token=self.token, **options) as run:
            self.store.take(*documents)
            drain(run)

    def noise(self) -> None:
        """What must not be taken for a difference."""
        self.deliver(self.sale(profile_id="nobody", profile_id_handle="loyalty-card"))  # refused
        pair = self.spending("redemption")
        self.deliver(pair, self.spending("reversal", redemption_external_id=pair["external_id"]))  # cancelled
        self.store.take(b"{")
        old = self.sale(transacted_at="2020-02-02 10:00:00")  # not in the list of the day
        self.deliver(old, old)
        self.post("/transactions", self.sale(location_id="ELSE"))  # another store's, without a witness
        foreign = {"omneo_journal": {"journal": "another", "seq": 1, "digest": "ab" * 32}}
        self.post("/transactions", self.sale(meta=foreign))
        self.post(f"/profiles/{JANE}/redeem", {"amount": 1, "strategies": ["rewards"], "location_id": "ELSE"})

    # -- at Omneo ---------------------------------------------------------------------------------------------------

    def post(self, path: str, body: Row) -> Row:
        sent = {name: value for name, value in body.items() if name not in {"kind", "terminal"}}
        answer = httpx.post(self.omneo.url + path, content=encode(sent), headers=AUTHORIZED)
        assert answer.is_success, answer.text
        found: Row = answer.json()["data"]
        return found

    def plant(self, what: str, number: Any, do: str = "change", **fields: Any) -> None:
        self.omneo.control("/plant", what=what, id=number, do=do, fields=fields)

    def rows(self, what: str) -> dict[str, Row]:
        """What Omneo has of our documents that were delivered, by external_id."""
        state = self.omneo.state()
        if what == "transaction":
            return {row["external_id"]: row for row in state["transactions"]}
        return {row["meta"]["external_id"]: row for row in state["redemptions"] if row["meta"]}

    # -- what is found ----------------------------------------------------------------------------------------------

    def examine(self, days: Days = TODAY, rest: Any = at_once, first: Any = None, **more: Any) -> Row:
        link = Link(check_url(self.omneo.url), Credentials(self.token), self.wire, rate=0, sleep=at_once)
        with (
            closing(Books(self.store.db, self.store.delivery)) as books,
            story.both_books(self.store.db, self.store.delivery) as both,
        ):
            way = asking.Asking(link, rest, first=first or (lambda: reconcile.idle(both.conn, rest)))
            result = reconcile.examine(books, both.conn, way, reconcile.Wanted(days, **more))
            json.dumps(reconcile.facts(books, result))  # as the book keeps it
        return result


def found(result: Row) -> set[tuple[Any, ...]]:
    """Each difference by what it is, of which document, in which fields."""
    told = [
        (row["what"], row["external_id"], *sorted({each["field"] for each in row["fields"]}))
        for row in result["differences"]
    ]
    assert len(told) == len(set(told))
    return set(told)


@pytest.fixture
def shop(store: Store, omneo: Omneo, token: Path) -> Iterator[Shop]:
    wire = Wire(2.0)
    yield Shop(store, omneo, token, wire)
    wire.close()
    store.verified()


# -- plants: each changes one thing and says what has to be found ---------------------------------------------------


Plant = Callable[[Shop, str, Row], tuple[Any, ...]]


def lose(shop: Shop, name: str, row: Row) -> tuple[Any, ...]:
    shop.plant("transaction" if "items" in row and "systems" in row else "redemption", row["id"], "lose")
    return ("missing_there", name)


def double(shop: Shop, name: str, row: Row) -> tuple[Any, ...]:
    shop.plant("transaction" if "systems" in row else "redemption", row["id"], "double")
    return ("doubled", name)


def change(what: str, told: str, **fields: Any) -> Plant:
    def plant(shop: Shop, name: str, row: Row) -> tuple[Any, ...]:
        shop.plant(what, row["id"], **fields)
        return ("different", name, told)

    return plant


def line(told: str, **fields: Any) -> Plant:
    def plant(shop: Shop, name: str, row: Row) -> tuple[Any, ...]:
        first, *others = row["items"]
        as_json = json.loads(json.dumps([first | fields, *others], default=float))
        shop.plant("transaction", row["id"], items=as_json)
        return ("different", name, told)

    return plant


def fewer(shop: Shop, name: str, row: Row) -> tuple[Any, ...]:
    shop.plant("transaction", row["id"], items=[])
    return ("different", name, "items")


def another_id(shop: Shop, name: str, row: Row) -> tuple[Any, ...]:
    """Deleted, and made again by somebody."""
    shop.plant("transaction", row["id"], "double")
    shop.plant("transaction", row["id"], "lose")
    return ("different", name, "id")


def other_customer(shop: Shop, name: str, row: Row) -> tuple[Any, ...]:
    there = OMAR if row["profile_id"] != OMAR else JANE
    shop.plant("transaction" if "systems" in row else "redemption", row["id"], profile_id=there)
    return ("different", name, "profile_id")


def not_void(shop: Shop, name: str, row: Row) -> tuple[Any, ...]:
    shop.plant("transaction", row["id"], is_void=not row["is_void"])
    return ("different", name, "is_void")


OF_SALES: dict[str, Plant] = {
    "profile_id": other_customer,
    "unattached": change("transaction", "profile_id", profile_id=None),
    "missing there": lose,
    "doubled": double,
    "id": another_id,
    "total": change("transaction", "total", total=1),
    "total as text": change("transaction", "total", total="1.01"),
    "timezone": change("transaction", "timezone", timezone="Pacific/Auckland"),
    "currency": change("transaction", "currency", currency="USD"),
    "transacted_at": change("transaction", "transacted_at", transacted_at=f"{DATE} 07:59:59"),
    "another day": change("transaction", "transacted_at", transacted_at="2020-02-02 02:02:02"),
    "is_void": not_void,
    "location_id": change("transaction", "location_id", location_id="SYD01"),
    "redemption_id": change("transaction", "redemption_id", redemption_id=1),
    "receipt_ref": change("transaction", "receipt_ref", receipt_ref="T-other"),
    "rounding": change("transaction", "rounding", rounding=0.03),
    "items": fewer,
    "quantity": line("items.quantity", quantity=77),
    "price": line("items.price_sell", price_sell=0.01),
    "name": line("items.name", name="something else"),
    "sku": line("items.sku", sku="Z"),
    "line's old price": line("items.price_current", price_current=0.01),
    "witness": change(
        "transaction", "meta.omneo_journal", meta={"omneo_journal": {"journal": "x", "seq": 2, "digest": "0" * 64}}
    ),
}
NEEDS: dict[str, Callable[[Row], Any]] = {  # which sales a plant can be in
    "profile_id": lambda row: row["profile_id"],
    "unattached": lambda row: row["profile_id"],
    "receipt_ref": lambda row: row["receipt_ref"],
    "rounding": lambda row: row["receipt_ref"],  # the two come together
    "sku": lambda row: row["items"][0].get("sku"),
}
OF_REDEMPTIONS: dict[str, Plant] = {
    "missing there": lose,
    "doubled": double,
    "total": change("redemption", "total", total=0.5),
    "type": change("redemption", "type", type="gift"),
    "reference": change("redemption", "meta.external_id", meta={"external_id": "somebody else's"}),
    "profile_id": other_customer,
}
OF_UNDOING: dict[str, Plant] = OF_REDEMPTIONS | {
    "source": change("redemption", "linked_source_id", linked_source_id=1),
}
del OF_UNDOING["profile_id"]  # it names no customer


def plant_all(shop: Shop, kinds: dict[str, Plant], rows: dict[str, Row], times: int) -> None:
    """Each kind so many times, in documents that nothing was planted in yet; the choosy ones first."""
    for how, plant in sorted(kinds.items(), key=lambda kind: kind[0] not in NEEDS):
        for _ in range(times):
            fit = sorted(name for name, row in rows.items() if "systems" not in row or NEEDS.get(how, bool)(row))
            assert fit, f"too few documents for {how}"
            name = shop.dice.choice(fit)
            shop.expected.add(plant(shop, name, rows.pop(name)))


def strangers(shop: Shop, times: int) -> None:
    """At Omneo, and in no book."""
    with closing(log.open_book(shop.store.db, "journal", write=False)) as db:
        (ours,) = db.execute("SELECT json_extract(facts, '$.journal') FROM log WHERE seq = 1").fetchone()
    known = sorted(name for name, row in shop.rows("transaction").items() if row["location_id"] == WHERE)
    for number in range(times):
        witness = {"omneo_journal": {"journal": ours, "seq": 10_000 + number, "digest": "cd" * 32}}
        how = [{}, {"meta": witness, "location_id": None}][number % 2]
        lost = shop.sale(**how)
        shop.post("/transactions", lost)
        shop.expected.add(("missing_here", lost["external_id"]))
        name = shop.name("X")
        meta = {"meta": {"external_id": name}}
        belongs = [{"location_id": WHERE}, {"transaction_external_id": known[0]}][number % 2]
        shop.post(f"/profiles/{WEI}/redeem", {"amount": 1, "strategies": ["rewards"]} | meta | belongs)
        shop.expected.add(("missing_here", name))


def delivered(shop: Shop, kinds: set[str]) -> dict[str, Row]:
    """Omneo's rows of ours, of these kinds."""
    with story.both_books(shop.store.db, shop.store.delivery) as both:
        names = {row["external_id"] for row in story.documents(both, state="delivered") if row["kind"] in kinds}
    rows = shop.rows("transaction" if kinds == {"sale"} else "redemption")
    return {name: row for name, row in rows.items() if name in names}


def refused_there(shop: Shop, times: int) -> None:
    """The books say that Omneo refused it, and Omneo has it."""
    no = [shop.sale(profile_id="nobody", profile_id_handle="loyalty-card") for _ in range(times)]
    shop.deliver(*no)
    for each in no:
        shop.post("/transactions", {**each, "profile_id": None, "profile_id_handle": None})
        shop.expected.add(("different", each["external_id"], "state"))


def overdrawn(shop: Shop, times: int) -> None:
    """Customers of whom more was taken than they had, and some whose benefit counts uses that nobody made."""
    benefit = {"handle": "parking", "name": "Parking", "max_redemptions": 9}
    whos = [str(uuid.UUID(int=shop.dice.getrandbits(128))) for _ in range(times)]
    for who in whos:
        shop.omneo.control("/profiles", id=who, rewards=50, benefits=[benefit])
    mine = [shop.spending("redemption") | {"profile_id": who} for who in whos]
    used = {row["id"]: row["benefits"][0]["id"] for row in shop.omneo.state()["profiles"] if row["id"] in whos}
    for each in mine[::2]:
        del each["amount"], each["strategies"]
        each["benefit_id"] = used[each["profile_id"]]
    shop.deliver(*mine)
    for each in mine:
        if "benefit_id" in each:
            shop.plant("benefit", each["benefit_id"], redemptions_remaining=7)
            shop.expected.add(("balance", each["external_id"], "redemptions_remaining"))
        else:
            shop.plant("balance", each["profile_id"], rewards=-1)
            shop.expected.add(("balance", each["external_id"], "balances.reward_balance"))


def test_an_untouched_day_has_no_difference(shop: Shop) -> None:
    shop.day(20, 15)
    shop.noise()
    result = shop.examine()
    assert (found(result), result["ok"], result["waiting"]) == (set(), True, 0)
    assert result["listed"] == {"sales": "yes", "redemptions": "yes"}
    assert result["counts"] == dict.fromkeys(reconcile.WHATS, 0)
    assert all((row["count"], row["sum"]) == (row["there"], row["there_sum"]) for row in result["terminals"])
    assert result["customers"] == 1
    assert result["of_others"] == 3


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), plants=st.integers(0, 2))
def test_random_days(
    tmp_path_factory: pytest.TempPathFactory, omneo: Omneo, token: Path, seed: int, plants: int
) -> None:
    omneo.control("/reset")
    wire = Wire(2.0)
    shop = Shop(Store(tmp_path_factory.mktemp("day")), omneo, token, wire, random.Random(seed))
    shop.day(shop.dice.randint(0, 8) + 20 * plants, shop.dice.randint(0, 8) + 15 * plants)
    if shop.dice.random() < 0.5:
        shop.noise()
    if shop.dice.random() < 0.5:
        omneo.control("/numbers", strings=True)
    some = lambda kinds: dict(shop.dice.sample(sorted(kinds.items()), min(len(kinds), 3 * plants)))  # noqa: E731
    plain = {name: row for name, row in delivered(shop, {"sale"}).items() if row["redemption"] is None}
    if plants:
        plant_all(shop, some(OF_SALES), plain, 1)
        plant_all(shop, some(OF_REDEMPTIONS), free(shop), 1)
        strangers(shop, shop.dice.randint(0, 2))
    result = shop.examine()
    assert found(result) == shop.expected
    wire.close()


def free(shop: Shop) -> dict[str, Row]:
    """Redemptions that no sale goes with and nothing undoes: a change of one is a change of that one only."""
    rows = delivered(shop, {"redemption"})
    undone = {row["linked_source_id"] for row in shop.omneo.state()["redemptions"]}
    return {name: row for name, row in rows.items() if row["transaction_id"] is None and row["id"] not in undone}


@pytest.mark.slow
@pytest.mark.parametrize("times", [50])
def test_fifty_planted_differences_of_every_kind_are_found_and_no_other(shop: Shop, times: int) -> None:
    """So many of each kind, on one day of thousands of documents."""
    shop.day(times * len(OF_SALES) * 3 // 2, times * 5 * (len(OF_UNDOING) + 2))
    shop.noise()
    plain = {name: row for name, row in delivered(shop, {"sale"}).items() if row["redemption"] is None}
    plant_all(shop, OF_SALES, plain, times)
    plant_all(shop, OF_REDEMPTIONS, free(shop), times)
    plant_all(shop, OF_UNDOING, delivered(shop, {"reversal", "return"}), times)
    strangers(shop, times)
    refused_there(shop, times)
    overdrawn(shop, times)
    result = shop.examine()
    assert found(result) == shop.expected
    kinds = len(OF_SALES) + len(OF_REDEMPTIONS) + len(OF_UNDOING) + 4
    assert len(shop.expected) == times * kinds


# -- what the plants above can't show -------------------------------------------------------------------------------


def test_a_double_that_lies_on_another_day_is_found_there_and_on_its_own_day_is_none(shop: Shop) -> None:
    shop.deliver(mine := shop.sale())
    number = shop.rows("transaction")[mine["external_id"]]["id"]
    shop.plant("transaction", number, "double", transacted_at="2020-02-02 10:00:00")
    then = datetime(2020, 2, 2).date()  # noqa: DTZ001 - a calendar day
    assert found(shop.examine()) == set()
    assert found(shop.examine(Days(then, then, None))) == {("doubled", mine["external_id"])}


@pytest.mark.parametrize("kind", ["redemption", "return"])
def test_a_double_of_another_days_redemption_is_told_on_the_day_on_which_it_was_made(shop: Shop, kind: str) -> None:
    spent = shop.spending("redemption")
    back = shop.spending("return", redemption_external_id=spent["external_id"], amount=1)
    shop.deliver(spent, back)
    name = {"redemption": spent, "return": back}[kind]["external_id"]
    shop.plant("redemption", shop.rows("redemption")[name]["id"], "double", created_at="2020-02-02 10:00:00")
    then = datetime(2020, 2, 2).date()  # noqa: DTZ001 - a calendar day
    assert found(shop.examine(Days(then, then, None))) == {("doubled", name)}


def test_what_the_books_call_refused_and_omneo_has_is_different(shop: Shop) -> None:
    lost = shop.sale(profile_id="nobody", profile_id_handle="loyalty-card")
    shop.deliver(lost)
    assert found(shop.examine()) == set()
    shop.post("/transactions", {**lost, "profile_id": None, "profile_id_handle": None})
    assert found(shop.examine()) == {("different", lost["external_id"], "state")}


def test_a_balance_below_zero_and_uses_that_nobody_made_are_told_without_figures_of_a_customer(shop: Shop) -> None:
    benefit = next(row for row in shop.omneo.state()["profiles"] if row["id"] == WEI)["benefits"][0]["id"]
    mine = shop.spending("redemption", benefit_id=benefit, profile_id=WEI)
    shop.deliver(mine)
    assert found(shop.examine()) == set()
    shop.plant("balance", WEI, rewards=-2_000_000)
    shop.plant("benefit", benefit, redemptions_remaining=17)
    rested: list[float] = []
    result = shop.examine(rest=rested.append)
    name = mine["external_id"]
    assert found(result) == {
        ("balance", name, "balances.reward_balance"),
        ("balance", name, "redemptions_remaining"),
    }
    assert rested == [asking.SETTLE_S]
    overdrawn = next(row for row in result["differences"] if row["fields"][0]["field"] == "balances.reward_balance")
    assert {(each["here"], each["there"]) for each in overdrawn["fields"]} == {(None, None)}
    assert WEI not in json.dumps(result, default=str)


def test_a_benefit_redemption_that_omneo_has_lost_shows_in_its_uses_too(shop: Shop) -> None:
    benefit = next(row for row in shop.omneo.state()["profiles"] if row["id"] == WEI)["benefits"][0]["id"]
    first, second = (shop.spending("redemption", benefit_id=benefit, profile_id=WEI) for _ in range(2))
    shop.deliver(first, second)
    rows = sorted(shop.omneo.state()["redemptions"], key=lambda row: row["id"])
    shop.plant("redemption", rows[0]["id"], "lose")
    assert found(shop.examine()) == {
        ("missing_there", first["external_id"]),
        ("balance", second["external_id"], "redemptions_remaining"),
    }


def test_a_redemption_that_a_till_made_online_is_counted_and_no_difference(shop: Shop) -> None:
    online = shop.post(f"/profiles/{WEI}/redeem", {"amount": 3, "strategies": ["rewards"], "location_id": WHERE})
    mine = shop.sale(redemption_id=online["id"], apply_redemption="proportional")
    shop.deliver(shop.sale(), mine)
    shop.post(f"/profiles/{WEI}/redeem", {"amount": 3, "strategies": ["rewards"], "location_id": WHERE})
    second = {"transaction_external_id": mine["external_id"]}  # a sale can name one only
    shop.post(f"/profiles/{WEI}/redeem", {"amount": 3, "strategies": ["rewards"]} | second)
    result = shop.examine()
    assert (found(result), result["made_online"]) == (set(), 2)


def test_what_nobody_here_can_put_a_figure_on_is_in_neither_sum(shop: Shop) -> None:
    """A reversal of what was made online, and a return of all that is left."""
    online = shop.post(f"/profiles/{WEI}/redeem", {"amount": 3, "strategies": ["rewards"]})
    undone = shop.spending("reversal", redemption_id=online["id"], redeemed_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}")
    spent = shop.spending("redemption")
    shop.deliver(spent, undone)
    shop.deliver(shop.spending("return", redemption_external_id=spent["external_id"]))
    result = shop.examine()
    assert (found(result), sum(row["there"] for row in result["terminals"])) == (set(), 3)
    assert all((row["count"], row["sum"]) == (row["there"], row["there_sum"]) for row in result["terminals"])


def test_a_reversal_that_nobody_here_asked_for_is_missing_here(shop: Shop) -> None:
    mine = shop.spending("redemption")
    shop.deliver(mine)
    number = shop.rows("redemption")[mine["external_id"]]["id"]
    undone = shop.post(f"/redemptions/{number}/reversal", {})
    (row,) = shop.examine()["differences"]
    assert (row["what"], row["kind"], row["omneo_id"]) == ("missing_here", "reversal", str(undone["id"]))


def test_sums_are_compared_as_numbers(shop: Shop) -> None:
    """A till writes 19.90, and Omneo 19.9."""
    line = {"name": "Shirt", "quantity": 1, "price_current": Decimal("19.90"), "price_sell": Decimal("19.90")}
    shop.deliver(mine := shop.sale(items=[line], total=Decimal("19.90")))
    shop.plant("transaction", shop.rows("transaction")[mine["external_id"]]["id"], total=19.9)
    result = shop.examine()
    assert (found(result), list(reconciled.lines(result))) == (set(), [])


def test_a_sale_that_lost_its_redemption_at_omneo_differs_in_nothing_else(shop: Shop) -> None:
    """Its lines there are still net of it, as they left."""
    spent = shop.spending("redemption")
    mine = shop.sale(redemption_external_id=spent["external_id"], apply_redemption="proportional")
    shop.deliver(spent, mine)
    shop.plant("transaction", shop.rows("transaction")[mine["external_id"]]["id"], redemption_id=None)
    assert found(shop.examine()) == {("different", mine["external_id"], "redemption_id")}


def test_a_list_that_does_not_say_what_was_used_proves_nothing_of_a_benefit(shop: Shop) -> None:
    benefit = next(row for row in shop.omneo.state()["profiles"] if row["id"] == WEI)["benefits"][0]["id"]
    shop.deliver(shop.spending("redemption", benefit_id=benefit, profile_id=WEI))
    (row,) = shop.omneo.state()["redemptions"]
    shop.plant("redemption", row["id"], items=None)
    assert found(shop.examine()) == set()


def test_of_a_sale_in_which_everything_differs_so_many_fields_are_named(shop: Shop) -> None:
    lines = [{"name": f"{number}", "quantity": 1, "price_current": 1, "price_sell": 1} for number in range(30)]
    shop.deliver(mine := shop.sale(items=lines, total=30))
    row = shop.rows("transaction")[mine["external_id"]]
    shop.plant("transaction", row["id"], items=[line | {"price_sell": 2} for line in lines])
    (told,) = shop.examine()["differences"]
    assert len(told["fields"]) == reconcile.FIELDS


def test_customers_that_were_merged_and_sales_that_were_claimed_are_no_difference(shop: Shop) -> None:
    mine = shop.sale(profile_id="6000000002", profile_id_handle="loyalty-card")
    by_id, claimed = shop.sale(profile_id=OMAR), sale(shop.name("S"), transacted_at=f"{DATE} 12:00:00")
    shop.deliver(mine, by_id, claimed)
    shop.plant("transaction", shop.rows("transaction")[claimed["external_id"]]["id"], profile_id=JANE)
    shop.omneo.control("/merge", **{"from": OMAR, "to": WEI})
    assert found(shop.examine()) == set()


def test_redacted_and_archived_bodies_are_compared_by_what_the_entry_knows(shop: Shop, tmp_path: Path) -> None:
    shop.day(3, 10)
    (first, _), *_ = _sales(shop)
    redact.redact(shop.store.db, shop.store.delivery, [first], "Ann", "the law")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert list(archive.archive(shop.store.db, shop.store.delivery, tomorrow, tmp_path / "packs"))
    assert found(shop.examine(locations=frozenset({WHERE}))) == set()
    name = next(name for seq, name in _sales(shop, "body.bytes IS NULL") if seq != first)
    shop.plant("transaction", shop.rows("transaction")[name]["id"], total=1, receipt_ref="unknown here by now")
    assert found(shop.examine(locations=frozenset({WHERE}))) == {("different", name, "total")}


def _sales(shop: Shop, those: str = "true") -> list[tuple[int, str]]:
    with closing(log.open_book(shop.store.db, "journal", write=False)) as db:
        query = (
            f"SELECT seq, external_id FROM log LEFT JOIN body USING (seq) WHERE kind = 'sale' AND {those} ORDER BY seq"
        )
        return db.execute(query).fetchall()


def test_a_field_can_be_left_out_and_that_is_said(shop: Shop) -> None:
    mine = shop.sale(receipt_ref="T-1")
    shop.deliver(mine)
    shop.plant("transaction", shop.rows("transaction")[mine["external_id"]]["id"], receipt_ref="1", total=1)
    assert found(shop.examine()) == {("different", mine["external_id"], "receipt_ref", "total")}
    result = shop.examine(ignored=frozenset({"receipt_ref"}))
    assert found(result) == {("different", mine["external_id"], "total")}
    assert "Not compared: receipt_ref." in list(reconciled.lines(result))


def test_other_ways_to_write_the_same_are_no_difference() -> None:
    lines = [
        {"name": "A", "quantity": 1, "price_current": 1, "price_sell": 1},
        {"name": "B", "quantity": 2, "price_current": 3, "price_sell": Decimal("2.5")},
    ]
    sent = sale("S", items=lines, location_id="MEL01", is_void=False, rounding=Decimal("0.020"))
    row = sent | {
        "total": "19.950",
        "rounding": 0.02,
        "transacted_at": "2025-06-15 04:32:00",  # the same moment, in UTC
        "location_id": None,
        "location": {"id": 2, "external_id": "MEL01"},
        "is_void": 0,
        "items": [{**lines[1], "quantity": "2", "product": None}, lines[0]],
        "currency": {"from": "AUD"},
    }
    assert list(compare.sale(sent, row)) == []
    assert list(compare.sale(sent | {"transacted_at": "2025-06-15T04:32:00Z"}, row)) == []
    assert [each["field"] for each in compare.sale(sent, row | {"transacted_at": "2025-06-15 05:32:00"})]
    padded = {
        "receipt_ref": " 659 ",
        "currency": "",
        "location_id": 3,
    }  # trimmed, and null; the oldest samples' numbers
    assert list(compare.sale(sent | padded, row | {"receipt_ref": 659, "currency": None, "location": 3})) == []
    rounded = [{**lines[0], "price_sell": Decimal("0.333333")}, lines[1]]
    shown = [{**lines[0], "price_sell": 0.33}, lines[1]]
    assert list(compare.sale(sent | {"items": rounded}, row | {"items": shown})) == []
    rounded[0]["price_sell"] = Decimal("0.335")
    assert [each["field"] for each in compare.sale(sent | {"items": rounded}, row | {"items": shown})]
    assert compare.linked({"redemption": {"id": 3}}) == compare.linked({"redemption": 3}) == "3"


def test_what_is_kept_of_a_row_is_all_that_is_compared_and_no_more() -> None:
    fields = (*compare.FIGURES, *compare.TEXTS, "transacted_at", "is_void", "location_id")
    in_lines = (*compare.LINE_FIGURES, *compare.LINE_TEXTS)
    line = dict.fromkeys(in_lines, 1)
    sent = sale("S", **dict.fromkeys(compare.FIGURES, 1), **dict.fromkeys(compare.TEXTS[1:], "1"), items=[line])
    sent |= {"is_void": True, "location_id": 1}
    row = {"id": 1, "product_images": ["…"], **dict.fromkeys(fields, 77), "items": [dict.fromkeys(in_lines, 77)]}
    row["items"][0]["product"] = {"title": "…"}
    told = list(compare.sale(sent, row))
    assert {each["field"] for each in told} == {*fields, *(f"items.{name}" for name in in_lines)}
    assert list(compare.sale(sent, compare.unpacked(compare.kept(row)))) == told
    assert {each["field"] for each in told} <= compare.NAMES
    assert "…" not in str(compare.unpacked(compare.kept(row)))


@pytest.mark.parametrize("value", [None, "", "soon", "NaN", "sNaN", "Infinity", [], {}, True, 1e400])
def test_whatever_omneo_says_is_compared_or_differs(value: Any) -> None:
    sent = sale("S", is_void=True, location_id=1)
    for name in ("total", "transacted_at", "is_void", "location_id", "location", "items", "timezone", "redemption"):
        row = {"id": 1, "external_id": "S", name: value}
        assert all(each["field"].startswith(name) for each in compare.sale(sent, row))
        compare.linked(row)


def test_a_day_far_from_omneos_utc_is_gone_through_by_its_own_hours(shop: Shop) -> None:
    """Redemptions are listed by Omneo's clock, sales by the till's: what falls out of either is asked for."""
    shop.day(3, 5)
    for number in (-1, 0, 1):
        one = Days(DATE + timedelta(days=number), DATE + timedelta(days=number), None)
        assert found(shop.examine(one)) == set()


def test_a_stranger_of_the_first_hours_is_found_whether_omneo_keeps_local_time_or_utc(shop: Shop) -> None:
    day, melbourne = date(2025, 6, 16), ZoneInfo("Australia/Melbourne")
    shop.deliver(shop.sale())
    early, late = shop.sale(transacted_at="2025-06-15 22:30:00"), shop.sale(transacted_at="2025-06-16 23:30:00")
    shop.post("/transactions", early)  # 08:30 there, as an Omneo has it that keeps UTC
    shop.post("/transactions", late)
    (told, other) = shop.examine(Days(day, day, melbourne), locations=frozenset({WHERE}))["differences"]
    assert {told["external_id"], other["external_id"]} == {early["external_id"], late["external_id"]}


@pytest.mark.parametrize("shown", ["2025-04-05 15:30:00", "2025-04-05T16:30:00.000000Z", "2025-04-06 02:30:00"])
def test_in_the_hour_that_comes_twice_either_moment_is_the_one(shown: str) -> None:
    sent = sale("S", transacted_at="2025-04-06 02:30:00", timezone="Australia/Melbourne")
    assert compare.same_time(sent, shown)
    assert not compare.same_time(sent, shown.replace(":30", ":31"))


def test_small_things_that_are_the_same_or_are_not() -> None:
    line = {"name": "Cheese", "quantity": Decimal("0.5"), "price_current": 1, "price_sell": 1}
    sent = sale("S", items=[line, line | {"sku": "X"}], rounding=0)
    row = sent | {"items": [line | {"sku": "X"}, line | {"sku": None}], "rounding": None}
    assert list(compare.sale(sent, row)) == []
    weighed = sent | {"items": [line | {"quantity": Decimal("0.504")}, line | {"sku": "X"}]}
    assert [each["field"] for each in compare.sale(sent, weighed)] == ["items.quantity"]


@pytest.mark.parametrize("code", [400, 422])
def test_a_refused_question_is_no_absence(shop: Shop, code: int) -> None:
    shop.deliver(shop.spending("redemption"))
    shop.omneo.fault("status", code=code, path="/redemptions", method="GET")
    with pytest.raises(log.NotNow, match=str(code)):
        shop.examine()


def test_another_stores_location_whose_number_is_our_code_is_not_ours(shop: Shop) -> None:
    shop.deliver(mine := shop.sale(location_id="2"))
    place = {"id": 9, "external_id": "2"}
    shop.plant("transaction", shop.rows("transaction")[mine["external_id"]]["id"], location_id=9, location=place)
    shop.post("/transactions", shop.sale(location_id=2))
    named = {"amount": 1, "strategies": ["rewards"], "location_id": 2, "meta": {"external_id": "R-OTHER"}}
    shop.post(f"/profiles/{JANE}/redeem", named)
    result = shop.examine()
    assert (found(result), result["of_others"]) == (set(), 2)
    shop.post("/transactions", web := shop.sale(location_id=9))
    assert found(shop.examine()) == {("missing_here", web["external_id"])}
    assert found(shop.examine(locations=frozenset({"MEL01"}))) == set()


def test_what_a_till_undid_online_by_itself_is_counted_too(shop: Shop) -> None:
    mine = shop.sale()
    spend = {"amount": 3, "strategies": ["rewards"], "transaction_external_id": mine["external_id"]}
    first = shop.post(f"/profiles/{WEI}/redeem", spend)
    shop.post(f"/redemptions/{first['id']}/reversal", {})
    second = shop.post(f"/profiles/{WEI}/redeem", spend)
    shop.deliver(mine | {"redemption_id": second["id"]})
    result = shop.examine()
    assert (found(result), result["made_online"]) == (set(), 2)


def test_points_may_be_owed_and_another_benefits_use_may_be_nameless(shop: Shop) -> None:
    benefit = next(row for row in shop.omneo.state()["profiles"] if row["id"] == WEI)["benefits"][0]["id"]
    shop.deliver(shop.spending("redemption", benefit_id=benefit, profile_id=WEI))
    shop.plant("balance", WEI, points=-100)
    shop.plant("benefit", benefit, redemptions_remaining=17)
    for row in shop.omneo.state()["redemptions"]:
        items = [dict(each, type_attributes=None, value=0) for each in row["items"]]
        shop.plant("redemption", row["id"], items=items)
    assert found(shop.examine()) == set()


def test_a_reversal_that_came_too_late_gives_back_what_was_left(shop: Shop) -> None:
    spent = shop.spending("redemption", amount=5)
    shop.deliver(spent)
    shop.deliver(shop.spending("return", redemption_external_id=spent["external_id"], amount=1))
    shop.omneo.control("/clock", offset_s=3600)
    shop.deliver(shop.spending("reversal", redemption_external_id=spent["external_id"]), late_reversal="return")
    shop.omneo.control("/clock", offset_s=0)
    assert [row["type"] for row in shop.omneo.state()["redemptions"]] == ["redeem", "return", "return"]
    assert found(shop.examine()) == set()


def test_what_a_token_may_not_see_is_said_and_ends_nothing(shop: Shop) -> None:
    shop.deliver(shop.spending("redemption"))
    shop.omneo.fault("status", code=403, path=f"/profiles/{WEI}/balances", method="GET")
    result = shop.examine()
    assert (result["ok"], result["complete"], result["customers_unseen"]) == (True, False, 1)
    assert "does not let this token see 1 of the customers" in " ".join(reconciled.lines(result))


def test_a_line_that_is_away_for_minutes_costs_nothing_that_was_heard(shop: Shop) -> None:
    """The first question is given up soon: somebody may be watching."""
    shop.deliver(*(shop.sale() for _ in range(3)))
    rested: list[float] = []

    def rest(seconds: float) -> None:
        rested.append(seconds)
        if len(rested) == asking.PATIENCE - 1:
            shop.omneo.mend()

    def first() -> None:
        if shop.omneo.asked()[-1].startswith("GET /transactions") and not rested:
            shop.omneo.fault("status", code=503)

    assert found(shop.examine(rest=rest, first=first)) == set()
    assert (rested[:6], max(rested)) == ([1.0, 2.0, 4.0, 8.0, 16.0, asking.REST_S], asking.REST_S)


# -- the way there ---------------------------------------------------------------------------------------------------


def test_it_changes_nothing_at_omneo_and_asks_in_lists(shop: Shop) -> None:
    shop.day(150, 10)
    before, asked = shop.omneo.state(), len(shop.omneo.asked())
    shop.examine()
    after = shop.omneo.state()
    assert all(after[name] == before[name] for name in ("transactions", "redemptions", "profiles"))
    lines = shop.omneo.asked()[asked:]
    assert {each.split()[0] for each in lines} <= {"GET", "POST"}
    assert {each for each in lines if each.startswith("POST")} <= {"POST /profiles/search-id"}
    assert len(lines) < 20


def test_what_seems_missing_is_asked_for_again_after_a_moment(shop: Shop) -> None:
    mine = shop.sale()
    shop.deliver(mine)
    number = shop.rows("transaction")[mine["external_id"]]["id"]
    row = shop.omneo.state()["transactions"][0]
    shop.plant("transaction", number, "lose")
    rested = []

    def rest(seconds: float) -> None:
        rested.append(seconds)
        shop.post(
            "/transactions",
            {name: row[name] for name in ("external_id", "total", "transacted_at", "timezone")} | {"items": []},
        )

    result = shop.examine(rest=rest)
    assert rested == [asking.SETTLE_S]
    assert ("missing_there", mine["external_id"]) not in found(result)


def test_it_makes_way_for_documents_that_wait(shop: Shop) -> None:
    shop.deliver(shop.sale())
    shop.store.take(late := shop.sale())
    rested: list[float] = []
    with pytest.raises(log.NotNow, match="makes way"):
        shop.examine(rest=rested.append)
    assert len(rested) == reconcile.IDLE_S

    result = shop.examine(rest=lambda _: shop.deliver())
    assert (found(result), result["waiting"]) == (set(), 0)
    assert shop.store.states()[late["external_id"]] == "delivered"


@pytest.mark.parametrize("path", ["/transactions", "/redemptions"])
def test_without_a_list_what_is_missing_here_can_not_be_noticed_and_that_is_said(shop: Shop, path: str) -> None:
    shop.day(3, 5)
    shop.omneo.fault("status", code=400, path=path, method="GET", count=1)
    result = shop.examine()
    assert found(result) == set()
    assert sorted(result["listed"].values()) == ["no", "yes"]
    assert (result["ok"], result["complete"]) == (True, False)
    assert "what is missing here can't be noticed." in " ".join(" ".join(reconciled.lines(result)).split())


def test_a_line_that_is_down_proves_nothing(shop: Shop) -> None:
    shop.deliver(shop.sale())
    shop.omneo.fault("portal")
    with pytest.raises(log.NotNow, match="portal"):
        shop.examine()
    shop.omneo.mend()
    shop.omneo.fault("status", code=404)
    with pytest.raises(log.Unusable, match="no such route"):
        shop.examine()


def test_what_was_held_and_goes_while_omneo_is_asked_is_not_missing(shop: Shop) -> None:
    """It is in no list of the day, and had no number at Omneo when it would have been asked for."""
    late = shop.spending("redemption", issued_at="2020-02-02 10:00:00")
    name = late["external_id"]
    shop.deliver(late, late_redemption="hold")
    assert shop.store.states()[name] == "held"

    def meanwhile() -> None:
        if shop.store.states()[name] == "held":
            with closing(Books(shop.store.db, shop.store.delivery)) as books:
                decide.release(books, name, "Ann", "")
            shop.deliver()
            shop.plant("redemption", shop.rows("redemption")[name]["id"], created_at="2020-02-02 10:00:00")

    assert found(shop.examine(first=meanwhile)) == set()
    assert shop.store.states()[name] == "delivered"


def test_what_goes_while_omneo_makes_its_list_is_not_missing_here(shop: Shop) -> None:
    """A reversal need not bear our name there, and its number is known here only when its answer has come."""
    mine = shop.spending("redemption")
    shop.deliver(mine)
    undone = shop.spending("reversal", redemption_external_id=mine["external_id"])
    shop.post(f"/redemptions/{shop.rows('redemption')[mine['external_id']]['id']}/reversal", {})

    def meanwhile() -> None:
        if shop.omneo.asked()[-1].startswith("GET /redemptions"):
            shop.deliver(undone)

    assert found(shop.examine(first=meanwhile)) == set()
    assert shop.store.states()[undone["external_id"]] == "delivered"


@pytest.mark.parametrize(
    ("body", "rows", "shown"),
    [
        (b'{"data":[{"id":1}]}', 1, "beginning"),
        (b'{"data":[{"id":1}],"meta":{"last_page":"2"}}', 2, "yes"),
        (b'{"data":[],"meta":{}}', 0, "yes"),
    ],
)
def test_a_list_is_whole_only_if_it_says_how_long_it_is(
    listen: Listen, token: Path, body: bytes, rows: int, shown: str
) -> None:
    url = check_url(listen(says(http("200 OK", body))).url)
    with closing(Wire(2.0)) as wire:
        link = Link(url, Credentials(token), wire, rate=0, sleep=at_once)
        listing = asking.Listing(asking.Asking(link, at_once), lambda page: asking.sales_between("2025", None, page))
        assert (len(list(listing)), listing.shown) == (rows, shown)


def test_of_a_list_that_shows_more_than_the_day_the_rest_is_not_missing_here(
    shop: Shop, listen: Listen, token: Path
) -> None:
    """A server may pass over a filter, and show what was sold before this journal was begun."""
    shop.deliver(shop.sale())
    rows = [
        {"id": number, "external_id": f"X-{number}", "location_id": WHERE, "transacted_at": f"{day} 12:00:00"}
        for number, day in enumerate(("2020-02-02", DATE))
    ]
    body = json.dumps({"data": rows, "meta": {"last_page": 1}}).encode()
    url = check_url(listen(says(http("200 OK", body))).url)
    with closing(Wire(2.0)) as wire, story.both_books(shop.store.db, shop.store.delivery) as both:
        way = asking.Asking(Link(url, Credentials(token), wire, rate=0, sleep=at_once), at_once)
        there = theirs.Theirs(way, both.conn, TODAY, "", named=frozenset({WHERE}))
        there.sales([])
    assert [row["external_id"] for _, row in there.strangers] == ["X-1"]


def test_who_wants_us_to_wait_long_is_asked_another_time(shop: Shop) -> None:
    shop.deliver(shop.sale())
    shop.omneo.fault("throttle", retry_after=600)
    rested: list[float] = []
    with pytest.raises(log.NotNow, match="429"):
        shop.examine(rest=rested.append)
    assert rested == []


# -- once more --------------------------------------------------------------------------------------------------------


def again(shop: Shop, *, yes: bool = True, value: bool = True) -> dict[str, str]:
    """What would be done with what is missing there, and with `yes` is."""
    result = shop.examine()
    with closing(Books(shop.store.db, shop.store.delivery)) as books:
        rows = resend.plan(books, result["differences"], value=value)
        if yes:
            goes = [row["seq"] for row in rows if row["what"] == "send"]
            assert len(decide.send_again(books, goes, "Ann", "lost at Omneo")) == len(goes)
    return {row["external_id"]: row["what"] for row in rows}


def lost(shop: Shop, *names: str) -> None:
    for name in names:
        what = "transaction" if name.startswith("S") else "redemption"
        shop.plant(what, shop.rows(what)[name]["id"], "lose")


def until_settled(shop: Shop, **options: Any) -> None:
    """Two looks are a settling time apart: time passes for the link only."""
    with shop.store.forwarding(shop.omneo.url, token=shop.token, **options) as run:
        for _ in range(200):
            result = step(run)
            if result is None:
                run.books.flush()
                return
            if not result.settles:
                run.memory.absent_since = {seq: at - 10 for seq, at in run.memory.absent_since.items()}
    raise AssertionError("something still waits")


def figures(shop: Shop) -> dict[str, Any]:
    told = status.status(shop.store.db, shop.store.delivery, log.utc_now())
    return {name: told[name] for name in ("waiting", "delivered", "refused", "held")}


def test_what_omneo_has_lost_goes_again_once_and_in_order(shop: Shop) -> None:
    spent = shop.spending("redemption")
    named = shop.sale(redemption_external_id=spent["external_id"], profile_id=WEI)
    plain = shop.sale()
    shop.deliver(spent, named, plain, shop.sale())
    before = figures(shop)
    lost(shop, spent["external_id"], named["external_id"], plain["external_id"])
    goes = dict.fromkeys([spent["external_id"], named["external_id"], plain["external_id"]], "send")
    assert again(shop, yes=False) == goes
    assert figures(shop) == before
    assert again(shop) == goes
    assert figures(shop) == before | {"waiting": 3, "delivered": before["delivered"] - 3}
    until_settled(shop)
    assert figures(shop) == before
    assert found(shop.examine()) == set()
    assert again(shop) == {}
    state = shop.omneo.state()
    assert [row["type"] for row in state["redemptions"]] == ["redeem"]
    assert len(state["transactions"]) == 3
    (released,) = [row for row in shop.store.show(plain["external_id"])["history"] if row["what"] == "released"]
    assert (released["by"], released["was"]) == ("Ann", "delivered")


def test_what_came_back_meanwhile_is_found_and_not_sent(shop: Shop) -> None:
    """Even by a forwarder that has run all the while, and delivered it itself."""
    mine = shop.sale()
    with shop.store.forwarding(shop.omneo.url, token=shop.token) as run:
        shop.store.take(mine)
        drain(run)
        lost(shop, mine["external_id"])
        assert again(shop) == {mine["external_id"]: "send"}
        shop.post("/transactions", mine)
        created = shop.omneo.counts()["transactions_created"]
        drain(run)
        assert shop.omneo.counts()["transactions_created"] == created
        assert shop.omneo.counts().get("transactions_updated", 0) == 0
    (_, last) = [row for row in shop.store.show(mine["external_id"])["history"] if row["what"] == "delivered"]
    assert last["found"]


def test_a_pair_that_is_lost_is_cancelled_and_a_reversal_that_is_lost_becomes_a_return(shop: Shop) -> None:
    names = []
    for _ in range(2):
        spent = shop.spending("redemption")
        shop.deliver(spent)
        undone = shop.spending("reversal", redemption_external_id=spent["external_id"])
        shop.deliver(undone)
        names += [spent["external_id"], undone["external_id"]]
    lost(shop, names[0], names[1], names[3])
    assert again(shop) == {names[0]: "send", names[1]: "send", names[3]: "send"}
    shop.omneo.control("/clock", offset_s=3600)
    until_settled(shop)
    states = shop.store.states()
    assert [states[name] for name in names] == ["cancelled", "cancelled", "delivered", "delivered"]
    assert sorted(row["type"] for row in shop.omneo.state()["redemptions"]) == ["redeem", "return"]
    shop.omneo.control("/clock", offset_s=0)
    assert found(shop.examine()) == set()


def test_a_redemption_whose_reversal_is_there_and_what_has_no_body_are_left(shop: Shop) -> None:
    spent, plain = shop.spending("redemption"), shop.sale()
    shop.deliver(spent, plain)
    undone = shop.spending("reversal", redemption_external_id=spent["external_id"])
    shop.deliver(undone)
    seq = shop.store.show(plain["external_id"])["seq"]
    redact.redact(shop.store.db, shop.store.delivery, [seq], "Ann", "the law")
    lost(shop, spent["external_id"], plain["external_id"])
    assert again(shop) == {spent["external_id"]: "leave", plain["external_id"]: "leave"}
    assert figures(shop)["waiting"] == 0


def test_only_sales_go_again_unless_value_is_said_and_value_only_where_it_is_sure(shop: Shop) -> None:
    """Omneo may have lost the row alone: then sending it again takes the customer's value twice."""
    spent, other, plain = shop.spending("redemption"), shop.spending("redemption"), shop.sale()
    back = shop.spending("return", redemption_external_id=other["external_id"], amount=1)
    shop.deliver(spent, other, plain, back)
    shop.plant("balance", WEI, points=200, rewards=0)
    short = shop.spending("redemption", amount=9, strategies=["points"])
    shop.deliver(short)
    lost(shop, *(each["external_id"] for each in (spent, other, plain, short)))
    names = {what: each["external_id"] for what, each in (("plain", plain), ("spent", spent), ("other", other))}
    left = {names["other"]: "leave", short["external_id"]: "leave"}
    assert again(shop, yes=False) == left | {names["spent"]: "send", names["plain"]: "send"}
    assert again(shop, value=False) == left | {names["spent"]: "leave", names["plain"]: "send"}
    until_settled(shop)
    assert len(shop.omneo.state()["redemptions"]) == 1
    assert names["plain"] in shop.rows("transaction")


def test_a_mere_candidate_is_not_taken_for_a_redemption_that_was_lost(shop: Shop) -> None:
    """Made online days later, for the same customer and amount, where Omneo gives no references back."""
    spent = shop.spending("redemption", amount=4)
    shop.deliver(spent)
    lost(shop, spent["external_id"])
    shop.post(f"/profiles/{WEI}/redeem", {"amount": 4, "strategies": ["rewards"]})
    again(shop)
    until_settled(shop)
    assert shop.store.states()[spent["external_id"]] == "held"
    assert shop.store.flags() == [("doubtful", spent["external_id"])]


# -- the entry, the report, the command ----------------------------------------------------------------------------


@pytest.fixture
def command(store: Store, omneo: Omneo, token: Path) -> Callable[..., Any]:
    given_ = ["--db", store.db, "--url", omneo.url, "--token-file", token, "--rate", 0, "--timeout", 2]
    return lambda *options: execute("forwarder", "reconcile", *given_, "--day", DATE, *options)


@pytest.fixture
def noon(shop: Shop) -> Shop:
    """Everything comes at noon of the day, whatever midnight comes in between."""
    local = datetime.combine(DATE, datetime.min.time()).astimezone() + timedelta(hours=12)
    shop.store.now = lambda: local.astimezone(UTC)
    return shop


def test_the_command_its_entry_and_the_report(noon: Shop, command: Callable[..., Any]) -> None:
    first, second = noon.sale(), noon.sale()
    noon.deliver(first, second)
    done = command()
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"2 documents of {DATE}: nothing differs (entry ")
    lost(noon, first["external_id"])
    noon.plant("transaction", noon.rows("transaction")[second["external_id"]]["id"], total=1)
    done = command("--json")
    assert (done.code, done.json["ok"]) == (1, False)
    assert done.json["counts"] == dict.fromkeys(reconcile.WHATS, 0) | {"missing_there": 1, "different": 1}
    with story.both_books(noon.store.db, noon.store.delivery) as both:
        told = report.report(both, Days(DATE, DATE, None))
        other = report.report(both, Days(DATE - timedelta(days=1), DATE - timedelta(days=1), None))
    assert other["reconciled"] is None
    assert told["reconciled"]["entry"] == done.json["entry"]
    assert told["reconciled"]["differences"] == done.json["differences"]
    text = "\n".join(report_text.lines(told))
    assert f"Missing at Omneo: sale {first['external_id']}" in text
    assert f"total {second['total']} here, 1 there" in text
    assert f"sale {first['external_id']}" in report_page.page(told)
    with closing(log.open_book(noon.store.delivery, "delivery", write=False)) as db:
        facts = json.loads(db.execute("SELECT facts FROM log WHERE seq = ?", (done.json["entry"],)).fetchone()[0])
    assert facts["other_book"]["entries"] == 3


@pytest.mark.parametrize("ordering", ["strict", "customer"])
def test_the_command_sends_again_only_when_told_so(noon: Shop, command: Callable[..., Any], ordering: str) -> None:
    mine = noon.sale()
    noon.deliver(mine, noon.sale())
    lost(noon, mine["external_id"])
    done = command("--resend")
    assert (done.code, done.out.splitlines()[-1]) == (1, "1 would go. --yes does it.")
    assert noon.store.states()[mine["external_id"]] == "delivered"
    done = command("--resend", "--yes", "--by", "Ann", "--note", "lost there", "--json")
    assert done.json["resend"] == [
        {"seq": 2, "kind": "sale", "external_id": mine["external_id"], "what": "send", "done": True}
        | {"why": "looked for by its external_id, sent if it isn't there"}
    ]
    assert noon.store.states()[mine["external_id"]] == "waiting"
    there = ["--db", noon.store.db, "--url", noon.omneo.url, "--token-file", noon.token, "--rate", 0]
    assert execute("forwarder", "run", *there, "--once", "--ordering", ordering).code == 0
    assert command().code == 0
    assert sorted(noon.omneo.sales()) == sorted(noon.store.states())


def test_its_exit_codes(noon: Shop, command: Callable[..., Any], token: Path) -> None:
    done = command()
    assert (done.code, "no delivery book" in done.err) == (78, True)
    noon.deliver(noon.sale())
    assert command("--yes").code == command("--value").code == 2
    for day in ("9999-12-31", "0001-01-01"):
        assert command("--day", day).code == 2
    done = command("--ignore", "recipt_ref")
    assert (done.code, "recipt_ref: that is not compared" in done.err) == (2, True)
    assert command("--timezone", "Nowhere").code == 2
    assert command("--db", noon.store.root / "nothing.db").code == 78
    token.write_text("wrong")
    done = command()
    assert (done.code, "credentials" in done.err) == (78, True)


def test_the_entry_names_the_first_of_many_and_counts_all(noon: Shop) -> None:
    result = {"differences": [{"external_id": f"S-{number}"} for number in range(1000)], "counts": {"different": 1000}}
    noon.deliver(noon.sale())
    with closing(Books(noon.store.db, noon.store.delivery)) as books:
        kept = reconcile.facts(books, result)
    assert (len(kept["differences"]), kept["counts"]) == (reconcile.KEPT, {"different": 1000})
