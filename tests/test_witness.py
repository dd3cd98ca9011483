"""What each sale takes along, so that Omneo holds the journal's chain, and what is read back from there."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from standin import Omneo, Store, encode, exact, execute, sale

from forwarder import omneo as routes
from forwarder import witness
from forwarder.replay import Replay, step
from journal import log
from journal.document import parse

WITNESS = {"journal": "0e5d8a9c-6f0d-4f58-9a5f-2f6c3b1d7e40", "seq": 42, "digest": "ab" * 32}


def entry(store: Store, external_id: str) -> dict[str, Any]:
    """What a sale has to take along, read from the journal."""
    with closing(log.open_book(store.db, "journal", write=False)) as db:
        (identity,) = db.execute("SELECT json_extract(facts, '$.journal') FROM log WHERE seq = 1").fetchone()
        query = "SELECT seq, lower(hex(digest)) FROM log WHERE external_id = ? AND kind = 'sale'"
        seq, digest = db.execute(query, (external_id,)).fetchone()
    return {"journal": identity, "seq": seq, "digest": digest}


def test_the_form_is_that_of_the_format_page() -> None:
    page = (Path(__file__).parents[1] / "docs/format.md").read_text("utf-8")
    (shown,) = re.findall(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (digest,) = re.findall(r"^\| 2 \| .*`([0-9a-f]{64})` \|$", page, re.MULTILINE)
    marked = witness.mark("0e5d8a9c-6f0d-4f58-9a5f-2f6c3b1d7e40", 2, bytes.fromhex(digest))
    assert json.loads(shown) == witness.beside({}, marked)


def posted(omneo: Omneo) -> list[dict[str, Any]]:
    return [row["posted"] for row in sorted(omneo.state()["transactions"], key=lambda row: row["id"])]


def drain(run: Replay) -> None:
    for _ in range(200):
        if step(run) is None:
            run.books.flush()
            return
    raise AssertionError("something still waits")


@pytest.fixture
def run(store: Store, omneo: Omneo, token: Path) -> Iterator[Replay]:
    with store.forwarding(omneo.url, token=token, timeout=0.4) as running:
        yield running


# -- what is taken along


def test_each_sale_takes_its_entry_to_omneo_which_gives_it_back(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-1"), sale("S-2", meta={"till": {"n": 1}}))
    drain(run)
    one, two = posted(omneo)
    assert one["meta"] == {"omneo_journal": entry(store, "S-1")}
    assert two["meta"] == {"till": {"n": 1}, "omneo_journal": entry(store, "S-2")}
    for name in ("S-1", "S-2"):
        shown = run.link.ask(routes.find_sale(name)).data
        assert shown["meta"]["omneo_journal"] == entry(store, name)
    assert store.flags() == []


def test_without_it_a_sale_leaves_as_the_till_wrote_it(store: Store, omneo: Omneo, token: Path) -> None:
    store.take(sale("S-1"), sale("S-2", meta={"a": 1}))
    with store.forwarding(omneo.url, token=token, witness=False) as run:
        drain(run)
    one, two = posted(omneo)
    assert ("meta" in one, two["meta"]) == (False, {"a": 1})


def leaves(**fields: Any) -> dict[str, Any]:
    """The body that leaves for a sale with these fields, and with a witness to take along."""
    _, _, body = routes.sale(parse(encode(sale("S-1", **fields))), "POS", None, WITNESS)
    assert body is not None
    return exact.decode(body)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["omneo_journal", "external_id", "seq", "digest"]) | st.text(max_size=8)


@given(st.dictionaries(names, values, max_size=4))
@example({"omneo_journal": None})
@example({"omneo_journal": WITNESS | {"seq": 1}})
@example({"omneo_journal": {}})
def test_nothing_of_a_sales_own_meta_is_ever_replaced(own: dict[str, Any]) -> None:
    meta = leaves(meta=own)["meta"]
    assert {name: meta[name] for name in own} == own
    assert meta == {"omneo_journal": WITNESS} | own


@pytest.mark.parametrize("own", [[], ["a"], [{"a": 1}]])
def test_a_meta_that_is_no_object_stays_as_it_is(own: list[Any]) -> None:
    assert leaves(meta=own)["meta"] == own


def test_a_meta_that_is_null_is_as_good_as_none() -> None:
    assert leaves(meta=None)["meta"] == leaves()["meta"] == {"omneo_journal": WITNESS}


def test_only_sales_take_it_along(store: Store, run: Replay, omneo: Omneo) -> None:
    """A redemption's `meta` has our external_id, which is what it is found by."""
    redemption = {"kind": "redemption", "external_id": "R-1", "profile_id": "jane@example.com"}
    redemption |= {"profile_id_handle": "email", "issued_at": "2025-06-15 14:32:00", "timezone": "Australia/Melbourne"}
    store.take(redemption | {"amount": Decimal(10), "strategies": ["rewards"]})
    drain(run)
    (row,) = omneo.state()["redemptions"]
    assert row["meta"] == {"external_id": "R-1"}


# -- what is sent again is the same


def test_what_is_sent_again_is_the_same_to_the_letter(store: Store, run: Replay, omneo: Omneo) -> None:
    store.take(sale("S-1", meta={"a": Decimal("1.10")}))
    bodies = []
    ask = run.link.ask

    def listen(request: routes.Request, within_s: float | None = None) -> Any:
        if request[0] == "POST":
            bodies.append(request[2])
        return ask(request, within_s)

    run.link.ask = listen  # type: ignore[method-assign]
    omneo.fault("drop_before", count=2, path="update-create")
    for _ in range(5):
        step(run)
    assert len(bodies) == 3
    assert len(set(bodies)) == 1


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_a_sale_whose_answer_was_lost_is_found_though_the_option_was_switched(
    store: Store, omneo: Omneo, token: Path, before: bool, after: bool
) -> None:
    run = store.open(omneo.url, token=token, timeout=0.4, witness=before)
    store.take(sale("S-1"))
    omneo.fault("drop_after", count=1, path="update-create")
    step(run)
    store.crash(run)
    with store.forwarding(omneo.url, token=token, witness=after) as run:
        drain(run)
    assert store.states() == {"S-1": "delivered"}
    assert store.flags() == []
    assert ("meta" in posted(omneo)[0]) == before
    assert omneo.counts().get("transactions_updated", 0) == 0


@pytest.mark.parametrize(
    ("options", "environment", "borne"),
    [
        ([], {}, True),
        (["--no-witness"], {}, False),
        ([], {"OMNEO_WITNESS": "0"}, False),
        ([], {"OMNEO_WITNESS": "no"}, False),
        (["--witness"], {"OMNEO_WITNESS": "0"}, True),
    ],
)
def test_the_option(
    store: Store, omneo: Omneo, token: Path, options: list[str], environment: dict[str, str], borne: bool
) -> None:
    store.take(sale("S-1"))
    given_ = ["--db", store.db, "--url", omneo.url, "--token-file", token, "--rate", 0, *options]
    assert execute("forwarder", "run", "--once", *given_, **environment).code == 0
    assert ("meta" in posted(omneo)[0]) == borne
