"""The way to head office, killed at some points; `make fleet` and `make fleet-kills` are the long runs."""

import cluster
import psycopg
import pytest

from tests.fleet import kills

pytestmark = pytest.mark.skipif(cluster.binaries() is None, reason="PostgreSQL's server is not here")
TWICE = """INSERT INTO ledger.entry
           SELECT chain, seq, received + interval '1 s', at, about, kind, external_id, facts, body_hash, digest
           FROM ledger.entry LIMIT 1"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork, where threads are
def test_kills_lose_nothing_and_double_nothing() -> None:
    died = kills.campaign(12, seed=5, say=lambda *_, **__: None)
    assert died["connection"] + died["shipper"] + died["server"] == 12


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
