"""
Anything may happen in any order: files of all kinds, a line that does what it likes, crashes, tokens, clocks.

Whatever happens, after each step both books verify, and Omneo holds what was delivered and at most what is in doubt,
each once, in journal order, digit by digit. Once things are well again, everything drains.

MODEL_EXAMPLES=2000 makes a long run of it.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from standin import Omneo, Store, encode, sale

from forwarder.replay import Replay, step
from forwarder.sandbox.customers import JANE
from forwarder.sandbox.serve import running
from journal import log

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "25"))
STEPS = 40
TIMEOUT_S = 0.15
AMOUNTS = ["19.95", "0.10", "-49.95", "1e2", "0", "123456789012345678901234567890.123", "149.95", "0.30000000000000004"]
FAULTS: list[dict[str, Any]] = [
    *({"mode": mode} for mode in ("drop_before", "drop_after", "refuse", "truncate", "skew", "throttle")),
    *({"mode": mode} for mode in ("forbidden", "unauthorized", "hang", "hang_after", "trickle")),
    *({"mode": mode, "reset": True} for mode in ("drop_before", "drop_after")),
    *(
        {"mode": mode, "apply": done}
        for mode in ("portal", "redirect", "garbage", "wrong_id")
        for done in (True, False)
    ),
    *({"mode": "status", "code": code, "apply": done} for code in (500, 503, 408) for done in (True, False)),
    *({"mode": "status", "code": code, "html": True} for code in (404, 413, 502)),
    *({"mode": "status", "code": code} for code in (400, 405, 409, 422, 425, 429)),
    {"mode": "status", "code": 404, "path": "update-create"},  # of a look-up it would be a lie, and we would believe it
    *({"mode": "status", "code": code, "apply": True} for code in (409, 422)),
]
GARBAGE = [b"", b"[]", b'{"kind": "sale"}', b'{"kind": "sale", "external_id": "S-0", "total": NaN}', b"\xff\xfe"]

standin: dict[str, Omneo] = {}


@pytest.fixture(scope="module", autouse=True)
def _one_sandbox_for_all() -> Iterator[None]:
    with running() as server:
        standin["omneo"] = Omneo(server)
        with standin["omneo"].desk:
            yield


class Machine(RuleBasedStateMachine):
    """A shop, its forwarder, and all that can befall them."""

    def __init__(self) -> None:
        super().__init__()
        self.omneo = standin["omneo"]
        self.place = Path(tempfile.mkdtemp())
        self.offset = timedelta()
        self.store = Store(self.place, now=self.now)
        self.token = self.place / "token"
        self.token.write_text("sandbox")
        self.tokens = 0
        self.given: dict[str, dict[str, Any]] = {}  # what the till sold, by external_id, in the order of the files
        self.unknown_customers: set[str] = set()
        self.contested: set[str] = set()
        self.clocks_agree = True
        self.down = False
        self.run: Replay | None = None

    def now(self) -> datetime:
        return log.utc_now() + self.offset

    @initialize(before=st.integers(0, 2))
    def open_the_shop(self, before: int) -> None:
        """With some sales from before there was a delivery book."""
        self.omneo.mend()
        self.omneo.control("/reset")
        for _ in range(before):
            self.sell("19.95", customer=None, plenty=False)
        self.sweep()
        self.start()

    def start(self) -> None:
        self.run = self.store.open(
            self.omneo.url, token=self.token, timeout=TIMEOUT_S, poison_after=3, poison_for_s=0, now=self.now
        )

    # ── The till ──

    @rule(amount=st.sampled_from(AMOUNTS), customer=st.sampled_from([None, JANE, "nobody"]), plenty=st.booleans())
    def sell(self, amount: str, customer: str | None, *, plenty: bool) -> None:
        name = f"S/{len(self.given)}" if len(self.given) % 5 == 4 else f"S-{len(self.given)}"
        fields = {"profile_id": customer} if customer else {}
        if plenty:
            fields |= {"meta": {"n": 9007199254740993, "who": "ä🛒"}, "receipt_ref": "R"}
        content = sale(name, total=Decimal(amount), **fields)
        self.given[name] = content
        if customer == "nobody":
            self.unknown_customers.add(name)
        self.store.drop(content)

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def sell_again(self, data: st.DataObject) -> None:
        """The same content, written otherwise."""
        content = self.given[data.draw(st.sampled_from(sorted(self.given)))]
        self.store.drop(b"  " + encode(dict(reversed(content.items()))) + b"\n")

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def contradict(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.given)))
        self.contested.add(name)
        self.store.drop(encode(self.given[name] | {"total": Decimal("777.77")}))

    @rule(raw=st.sampled_from([raw for raw in GARBAGE if raw]))
    def spoil(self, raw: bytes) -> None:
        self.store.drop(raw)

    @rule()
    def sweep(self) -> None:
        self.store.sweep()

    # ── The forwarder ──

    @rule(times=st.integers(1, 6))
    def forward(self, times: int) -> None:
        assert self.run is not None
        for _ in range(times):
            result = step(self.run)
            if result is None or not result.settles:
                break

    @rule()
    def pause(self) -> None:
        """What the loop does before it waits."""
        assert self.run is not None
        self.run.books.flush()

    @rule()
    def crash(self) -> None:
        assert self.run is not None
        self.store.crash(self.run)
        self.start()

    @rule()
    def restart(self) -> None:
        assert self.run is not None
        self.run.books.close()
        self.store.wire.close()
        self.start()

    @rule()
    def lose_the_delivery_book(self) -> None:
        """It costs look-ups, and the flags that were in it."""
        assert self.run is not None
        self.store.crash(self.run)
        self.store.delivery.unlink()
        self.start()

    # ── The line, Omneo, the world ──

    @rule(
        fault=st.sampled_from(FAULTS), count=st.integers(1, 3), path=st.sampled_from(["", "", "update-create", "ext"])
    )
    def go_wrong(self, fault: dict[str, Any], count: int, path: str) -> None:
        slow = fault["mode"] in {"hang", "hang_after", "trickle"}
        self.omneo.control("/faults", **({"path": path, "seconds": 0.5, "count": 1 if slow else count} | fault))

    @rule()
    def line_down(self) -> None:
        self.omneo.fault("down", seconds=600)
        self.down = True

    @precondition(lambda self: self.down)
    @rule()
    def line_up(self) -> None:
        self.omneo.mend()
        self.down = False

    @rule()
    def revoke(self) -> None:
        self.omneo.control("/revoke")

    @rule()
    def renew(self) -> None:
        self.tokens += 1
        self.omneo.control("/tokens", accept=f"token-{self.tokens}")
        self.token.write_text(f"token-{self.tokens}")

    @rule(hours=st.sampled_from([-48, -1, 1, 48]))
    def our_clock_jumps(self, hours: int) -> None:
        self.offset += timedelta(hours=hours)
        self.clocks_agree = False

    @rule(hours=st.sampled_from([-48, 0, 48]))
    def their_clock_jumps(self, hours: int) -> None:
        self.omneo.control("/clock", offset_s=hours * 3600)
        self.clocks_agree = False

    # ── What holds at any time ──

    @invariant()
    def books_and_omneo_agree(self) -> None:
        if self.run is None:
            return
        self.store.verified()
        states = self.store.states()
        tenant = self.omneo.server.state
        rows = [tenant.transactions[number] for number in sorted(tenant.transactions)]
        there = [row["external_id"] for row in rows]
        order = list(states)
        assert len(there) == len(set(there)) == tenant.counts["transactions_created"]
        assert there == sorted(there, key=order.index), "not in journal order"
        assert tenant.counts["transactions_updated"] == 0, "sent again without a look-up"
        delivered = {name for name, state in states.items() if state == "delivered"}
        assert delivered <= set(there), "delivered, but Omneo never got it"
        doubtful = {name for name in set(there) - delivered if states[name] not in {"waiting", "held"}}
        assert not doubtful, "Omneo has what was never settled as delivered"
        if self.clocks_agree:
            assert "conflict" not in {flag for flag, about in self.store.flags() if about in delivered - self.contested}
        for row in rows:
            assert row["external_id"] not in self.unknown_customers
            self.same_digits(tenant.posted[row["id"]], self.given[row["external_id"]])
        self.bear_witness(tenant.posted[row["id"]] for row in rows)

    def bear_witness(self, posted: Iterable[dict[str, Any]]) -> None:
        """However often each was tried, and whatever crashed meanwhile: its entry's number and digest."""
        with closing(log.open_book(self.store.db, "journal", write=False)) as db:
            query = "SELECT external_id, seq, lower(hex(digest)) FROM log WHERE kind = 'sale'"
            entries = {name: entry for name, *entry in db.execute(query)}
        for each in posted:
            borne = each["meta"]["omneo_journal"]
            assert [borne["seq"], borne["digest"]] == entries[each["external_id"]]

    @staticmethod
    def same_digits(posted: dict[str, Any], content: dict[str, Any]) -> None:
        ours = {"systems"}
        own = {name: value for name, value in posted["meta"].items() if name != "omneo_journal"}
        posted = posted | {"meta": own}
        content = {"meta": {}} | content
        assert {name: value for name, value in posted.items() if name not in ours} == {
            name: value for name, value in content.items() if name != "kind"
        }

    def teardown(self) -> None:
        """All is well again, and then everything drains."""
        try:
            if self.run is not None:
                self.drains(self.run)
        finally:
            if self.run is not None:
                self.store.crash(self.run)
            shutil.rmtree(self.place)

    def drains(self, run: Replay) -> None:
        self.line_up()
        self.renew()
        self.store.sweep()
        for _ in range(4 * len(self.given) + 20):
            if step(run) is None:
                break
        run.books.flush()
        self.books_and_omneo_agree()
        states = self.store.states()
        assert set(states) == set(self.given)
        assert set(states.values()) <= {"delivered", "refused", "held"}
        refused = {name for name, state in states.items() if state == "refused"}
        held = {name for name, state in states.items() if state == "held"}
        assert self.unknown_customers <= refused | held


TestModel = Machine.TestCase
TestModel.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
