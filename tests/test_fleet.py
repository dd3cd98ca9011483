"""The way to head office, killed at some points; what a chain needs. The long runs: `make fleet`."""

import cluster
import psycopg
import pytest

from tests.fleet import herd, kills, scale

needs_postgres = pytest.mark.skipif(cluster.binaries() is None, reason="PostgreSQL's server is not here")
TWICE = """INSERT INTO ledger.entry
           SELECT chain, seq, received + interval '1 s', at, about, kind, external_id, facts, body_hash, digest
           FROM ledger.entry LIMIT 1"""


@needs_postgres
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork, where threads are
def test_kills_lose_nothing_and_double_nothing() -> None:
    died = kills.campaign(12, seed=5, say=lambda *_, **__: None)
    assert died["connection"] + died["shipper"] + died["server"] == 12


@needs_postgres
@pytest.mark.slow
@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("UPDATE ledger.chain SET seq = seq - 1 WHERE book = 'delivery'", "refuses"),
        ("DELETE FROM ledger.waiting", "what waits"),
        ("UPDATE ledger.day SET sales = sales + 1", "sums"),
        (TWICE, "rows"),
        ("DELETE FROM ledger.entry WHERE seq = 1 AND chain = 1", "rows"),
        ("UPDATE ledger.entry SET digest = sha256('') WHERE seq = 2 AND chain = 1", "entries differ"),
    ],
)
def test_what_is_lost_or_doubled_is_noticed(deed: str, words: str) -> None:
    with kills.yard(1) as here:
        here.point("connection")
        while not here.store.open:
            here.store.grow()
        assert here.judge(whole=True) == []
        with psycopg.connect(here.owner) as db:
            db.execute(deed)
        assert words in " ".join(here.judge(whole=True))


def test_the_page_on_scale_is_computed_from_what_was_measured() -> None:
    page, figures = scale.PAGE.read_text("utf-8"), scale.load()
    assert scale.whole(page, figures) == page, "python -m tests.fleet.scale writes it"
    assert {"rate", "full", "fleet", "kills", "herd"} <= figures.keys()
    assert vars(scale.asked(figures)) == figures["herd"]["given"]


def test_what_a_chain_needs_follows_from_the_figures() -> None:
    rate = {"entries_s": 20_000, "entry_cpu_us": 40, "entry_bytes": 400, "line_mb": 4, "sign_cpu_ms": 2}
    small = {"shipment_cpu_ms": 3, "shipment_new_line_cpu_ms": 8, "shipment_new_line_ms": 10}
    figures: scale.Figures = {"rate": rate | small, "fleet": {"entries_a_document": 2.16}}
    needed = dict(scale.needs(figures))
    assert needed["entries a day"] == "10.8 million (2.16 a document)"
    assert needed["entries a second, all day and in the rush"] == "250 and 600"
    assert needed["… of what the ledger took here, catching up"] == "3% of 20,000"
    assert needed["disk a year, with indexes"] == "1.58 TB (400 bytes an entry)"
    assert needed["cores for them, where lines stay open"] == "2.00"  # 556 shipments of 3 ms, 167 signs of 2 ms
    assert needed["cores for them, where each makes its line anew"] == "5.61"  # and 722 lines of 5 ms
    assert "None yet." in scale.whole(scale.PAGE.read_text("utf-8"), {})


def test_jitter_spares_the_server_what_a_herd_would_do_to_it() -> None:
    given = herd.parser().parse_args(["--stores", "1000", "--cores", "1", "--connections", "20", "--hours", "1"])
    ours, bare, hasty = (herd.returns(policy, given) for policy in herd.POLICIES.values())
    assert ours == herd.returns(next(iter(herd.POLICIES.values())), given)
    alone = given.stores * herd.work_s(given.connect_ms, given.entry_us, given.per_document, given.hours)
    for told in (ours, bare, hasty):
        assert told.drained_s >= alone
        assert told.attempts == given.stores + told.turned_away
    assert bare.busiest == given.stores  # all in one second
    assert ours.busiest < bare.busiest / 10
    assert ours.turned_away < bare.turned_away
