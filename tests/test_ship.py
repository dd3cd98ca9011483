"""The way to head office: what a store's role may do there, lines that fail, and the commands."""

import os
import socket
import threading
import uuid
from contextlib import closing, suppress
from datetime import UTC
from pathlib import Path
from urllib.parse import urlsplit

import cluster
import psycopg
import pytest
from faults import certs
from fleet.relay import Relay
from office import Office, identity, local, remote, sales, tamper
from standin import Store, execute
from tills import wait_until

from forwarder import headoffice_schema, ledger, ship_loop
from forwarder.ship import Shipper, pause
from journal.log import NotNow, Unusable
from journal.notify import Pulse

pytestmark = pytest.mark.skipif(cluster.binaries() is None, reason="PostgreSQL's server is not here")


# -- what a store's role may do ---------------------------------------------------------------------------------------


FORBIDDEN = [
    "SELECT * FROM ledger.entry",
    "SELECT * FROM ledger.stores",
    "SELECT * FROM ledger.chain",
    "INSERT INTO ledger.entry VALUES (1, 9, now(), now(), NULL, 'sale', NULL, '', NULL, '')",
    "COPY ledger.entry FROM STDIN",
    "UPDATE ledger.chain SET seq = 0",
    "DELETE FROM ledger.entry",
    "TRUNCATE ledger.entry",
    "SELECT ledger.accept_fork('x', 'journal', 0, '', '')",
    "SELECT ledger.enrol('x', 'x', 'x')",
    "SELECT ledger.found(1, 'journal', 'x', 1, 'x')",
    "SELECT ledger.root(1, 1)",
    "SELECT ledger.mailbox()",
    "SELECT * FROM pg_temp.mail",
    "DELETE FROM pg_temp.mail",
    "CREATE TEMP TABLE mine (x int)",
    "CREATE TABLE public.mine (x int)",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TRIGGER t BEFORE INSERT ON pg_temp.mail EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "SET ROLE owner",
    "SELECT * FROM public.ledger_migration",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT lo_creat(-1)",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'junk')",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_xact_lock_shared(1, 1)",
    "SELECT pg_logical_emit_message(false, 'x', 'y')",
]


def test_a_stores_role_may_call_one_function_and_nothing_else(office: Office, store: Store) -> None:
    sales(store, "A")
    assert office.shipper(store).go()
    with psycopg.connect(office.role("s1"), autocommit=True) as db:
        db.execute("SELECT * FROM ledger.ship('x', 'journal', 0, 0, '', now())")  # makes the mailbox
        for statement in FORBIDDEN:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(statement)
    query = """SELECT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'ledger'::regnamespace
               AND has_function_privilege('omneo_store', p.oid, 'EXECUTE')"""
    assert office.rows(query) == [{"proname": "ship"}]
    assert office.rows("SELECT ledger.loose()") == []
    office.do(f"GRANT TEMP ON DATABASE {office.name} TO PUBLIC")
    office.do("GRANT EXECUTE ON FUNCTION ledger.found TO omneo_store")
    office.do("GRANT SELECT ON ledger.day TO PUBLIC")
    office.do("GRANT EXECUTE ON FUNCTION pg_advisory_unlock_all() TO PUBLIC")
    assert len(office.rows("SELECT ledger.loose()")) == 4


def test_who_lays_the_schema_without_all_rights_is_told_what_is_left(postgres: cluster.Cluster, store: Store) -> None:
    name = f"l{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres.url(), autocommit=True) as db:
        db.execute(f"CREATE ROLE {name} LOGIN CREATEROLE")
        db.execute(f"CREATE DATABASE {name} OWNER {name}")
    laid = execute("forwarder", "ledger", "--to", postgres.url(name, name))
    assert (laid.code, "004_views.sql was run" in laid.out) == (1, True)
    assert "can make large objects" in laid.err
    sales(store, "A")
    cluster.enrol(postgres.url(name, name), role := f"{name}_s1")
    with closing(ledger.Ledger(postgres.url(role, name), 30)) as line:
        assert Shipper(store.db, store.delivery, line, lambda *_, **__: None).go()
    assert execute("forwarder", "ledger", "--to", postgres.url(database=name)).code == 0
    with psycopg.connect(postgres.url(), autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}_1 ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(Unusable, match="LATIN1"):
        headoffice_schema.lay(postgres.url(database=f"{name}_1"))


def test_a_month_that_got_no_partition_in_time_stays_where_it_is(office: Office, store: Store) -> None:
    this = f"ledger.entry_{office.one('SELECT now()').astimezone(UTC):%Y_%m}"
    office.do(f"DROP TABLE {this}")
    sales(store, "A")
    assert office.shipper(store).go()
    assert headoffice_schema.lay(office.owner, months=5) == ([], [])
    assert office.one("SELECT count(*) FROM ledger.entry_other") == len(local(store.db))
    assert office.one("SELECT ledger.make_room(6)") == 2
    sales(store, "B")
    assert office.shipper(store).go()
    assert remote(office, "journal") == local(store.db)


def test_the_password_comes_from_systemd_whatever_its_files_mode(office: Office, store: Store) -> None:
    url = office.role("s1")
    office.do(f"ALTER ROLE {office.name}_s1 PASSWORD 'a word'")
    rules = office.server.data / "pg_hba.conf"
    rules.write_text(f"local all {office.name}_s1 scram-sha-256\n{rules.read_text()}")
    office.server.reload()
    credential = office.root / "omneo-ledger-password"
    around = {"OMNEO_LEDGER": url, "OMNEO_JOURNAL_DB": str(store.db), "CREDENTIALS_DIRECTORY": str(office.root)}
    for word, code in (("another", 78), ("a word\n", 0)):
        credential.write_text(word)
        credential.chmod(0o440)
        shipped = execute("forwarder", "ship", "--once", **around)
        assert shipped.code == code, shipped.err
        assert word.strip() not in shipped.err


def test_a_role_that_is_no_stores_is_told_so(office: Office, store: Store) -> None:
    office.do(f"CREATE ROLE {office.name}_nobody LOGIN")
    office.do(f"GRANT CONNECT ON DATABASE {office.name} TO {office.name}_nobody")
    for role, words in ((f"{office.name}_nobody", "enrol"), ("nobody_at_all", "let us in")):
        with closing(ledger.Ledger(office.server.url(role, office.name), 5)) as line:
            stranger = Shipper(store.db, store.delivery, line, lambda *_, **__: None)
            with pytest.raises(Unusable, match=words):
                stranger.go()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://s1:secret@db.example/ledger", "password"),
        ("postgresql://s1@db.example/ledger?password=secret", "password"),
        ("postgresql://s1@db.example/ledger?sslmode=require", "verify-full"),
        ("postgresql:///?service=head&sslmode=prefer", "verify-full"),
        ("postgresql://s1@db.example/ledger?sslpassword=secret", "sslpassword"),
        ("mysql://s1@db.example/ledger", "postgresql://"),
        ("postgresql://s1@db.example/ledger?nonsense=1", "can't be read"),
    ],
)
def test_an_address_that_would_give_something_away_is_refused(url: str, words: str) -> None:
    with pytest.raises(Unusable, match=words) as refused:
        ledger.check_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "where",
    [
        "db.example/ledger",
        "/ledger?hostaddr=192.0.2.1",
        "localhost,db.example/ledger",
        "/l?host=/tmp,db",
        "/ledger?service=head",
    ],
)
def test_a_line_to_another_machine_is_verified_by_default(where: str) -> None:
    assert "sslmode=verify-full" in ledger.check_url(f"postgresql://s1@{where}")


def test_a_line_that_stays_on_the_machine_needs_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in ("localhost/ledger", "/ledger", "/ledger?host=/run/postgresql", "localhost/ledger?hostaddr=127.0.0.1"):
        assert "sslmode" not in ledger.check_url(f"postgresql://s1@{where}")
    for name, value in (("PGHOST", "db.example"), ("PGSERVICE", "head")):
        with monkeypatch.context() as around:
            around.setenv(name, value)
            assert "sslmode=verify-full" in ledger.check_url("postgresql://s1@/ledger")


def test_the_machines_own_roots_are_named_to_a_library_that_knows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (named := ("SSL_CERT_FILE", "SSL_CERT_DIR")):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    ledger.check_url("postgresql://s1@db.example/ledger")
    assert any(Path(os.environ[name]).exists() for name in named if name in os.environ)


def test_a_server_has_to_show_a_certificate_that_the_machine_trusts(store: Store, tmp_path: Path) -> None:
    certs.contexts(tmp_path, "ours")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with cluster.running(listen_addresses="127.0.0.1", port=port) as server:
        server.ledger("template")
        office = Office(server, tmp_path)
        role = urlsplit(office.role("s1")).username
        address = f"postgresql://{role}@127.0.0.1:{port}/{office.name}?sslmode=verify-full"
        around = {"OMNEO_LEDGER": address, "OMNEO_JOURNAL_DB": str(store.db), "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        for kind in ("stranger", "wrong_host", "expired"):
            server.certify(tmp_path / f"{kind}.pem")
            shipped = execute("forwarder", "ship", "--once", **around)
            assert (shipped.code, "certificate" in shipped.err) == (75, True)
            assert remote(office, "journal") == []
        server.certify(tmp_path / "good.pem")
        assert execute("forwarder", "ship", "--once", **around).code == 0
        assert remote(office, "journal") == local(store.db)
        del around["SSL_CERT_FILE"]
        assert execute("forwarder", "ship", "--once", **around).code == 75


# -- lines that fail --------------------------------------------------------------------------------------------------


def test_it_goes_on_by_itself_after_an_outage(store: Store, tmp_path: Path) -> None:
    with cluster.running() as server:
        office = Office(server, tmp_path) if server.ledger("template") else None
        assert office is not None
        shipper = office.shipper(store)
        stop = threading.Event()
        loop = threading.Thread(
            target=ship_loop.run_until, args=(shipper, stop, Pulse({}), 0.05, lambda most: min(most, 0.05))
        )
        loop.start()
        try:
            sales(store, "A")
            wait_until(lambda: office.one("SELECT count(*) FROM ledger.waiting") == 1)
            server.crash()
            sales(store, "B")
            wait_until(lambda: "ledger_down" in office.events())
            server.start()
            wait_until(lambda: "ledger_up" in office.events())
            wait_until(lambda: office.one("SELECT count(*) FROM ledger.waiting") == 2)
        finally:
            stop.set()
            loop.join()
        for line in office.lines:
            line.close()
        assert remote(office, "journal") == local(store.db)
        assert list(dict.fromkeys(office.events())) == ["ready", "ledger_down", "ledger_up", "stopped"]


@pytest.mark.skipif(cluster.pooler() is None, reason="PgBouncer is not here")
def test_stores_that_share_one_connection_of_a_pooler_take_turns(office: Office, tmp_path: Path) -> None:
    names = ("north", "south", "west")
    roles = [urlsplit(office.role(name)).username or "" for name in names]
    with cluster.pooled(office.server, roles, 1) as front:
        shippers = []
        for name, role in zip(names, roles, strict=True):
            (tmp_path / name).mkdir()
            line = ledger.Ledger(ledger.check_url(f"postgresql://{role}@/{office.name}?host={front}"), 30)
            store = Store(tmp_path / name)
            shippers.append((store, Shipper(store.db, store.delivery, line, lambda *_, **__: None, batch=2)))
            office.lines.append(line)
        for turn in range(3):
            for store, shipper in shippers:
                sales(store, *(f"S-{store.root.name}-{turn}-{each}" for each in range(5)))
                wait_until(lambda shipper=shipper: went(shipper))
        for line in office.lines:
            line.close()
    for name, (store, _) in zip(names, shippers, strict=True):
        there = office.rows("SELECT seq, digest FROM ledger.log WHERE name = %s ORDER BY seq", name)
        assert [(row["seq"], row["digest"]) for row in there] == [(row[0], row[7]) for row in local(store.db)]


def went(shipper: Shipper) -> bool:
    with suppress(NotNow):
        return shipper.go()
    return False


def test_a_server_that_says_nothing_is_hung_up_on(office: Office, store: Store) -> None:
    sales(store, "A")
    shipper = office.shipper(store)
    shipper.ledger._timeout_s = 0.3
    with psycopg.connect(office.owner) as holder:
        holder.execute("LOCK ledger.store IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(NotNow):
            shipper.go()
    shipper.ledger._timeout_s = 30
    assert shipper.go()
    assert remote(office, "journal") == local(store.db)


def test_a_line_that_died_without_a_word_gives_up_the_book_that_it_held(office: Office, store: Store) -> None:
    """A router's power, a provider's table: the server has heard nothing of it, and holds the transaction."""
    sales(store, "A")
    shipper = office.shipper(store)
    assert shipper.go()
    with psycopg.connect(office.role("s1"), autocommit=True) as line:
        told = {name: line.execute(f"SHOW {name}").fetchone() for name in ("idle_in_transaction_session_timeout",)}
    assert told == {"idle_in_transaction_session_timeout": ("2min",)}
    office.do(f"ALTER DATABASE {office.name} SET idle_in_transaction_session_timeout = '1s'")
    gone = psycopg.connect(office.role("s1"))
    gone.execute("SELECT * FROM ledger.ship(%s, 'journal', 2, 0, %s, now())", (identity(store), bytes(32)))
    sales(store, "B")
    shipper.ledger._timeout_s = 0.2
    with pytest.raises(NotNow):
        shipper.go()
    shipper.ledger._timeout_s = 30
    wait_until(lambda: not office.one(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{office.name}_s1'"))
    assert shipper.go()
    gone.close()
    assert remote(office, "journal") == local(store.db)


def test_a_line_too_slow_for_a_batch_is_given_smaller_ones(office: Office, store: Store) -> None:
    sales(store, *(f"S-{number}" for number in range(1500)))
    near = Relay(str(store.root / ".s.PGSQL.5432"), f"{office.server.root}/.s.PGSQL.5432")
    near.slow_s = 2 / 300_000  # all of it in two seconds, and nobody waits for more than half a one
    try:
        address = f"postgresql://{urlsplit(office.role('s1')).username}@/{office.name}?host={store.root}"
        with closing(ledger.Ledger(ledger.check_url(address), 0.5)) as line:
            shipper = Shipper(store.db, store.delivery, line, lambda *_, **__: None)
            cut = 0
            while not shipper.shipped or remote(office, "journal") != local(store.db):
                try:
                    shipper.go()
                except NotNow:
                    cut += 1
                assert cut < 100
        assert cut >= 1
        assert remote(office, "journal") == local(store.db)
    finally:
        near.down()


def test_an_outage_of_years_ends_no_shipper() -> None:
    assert pause(0, lambda most: most) == 2.0
    assert pause(10**6, lambda most: most) == 120.0


def test_a_partition_isnt_waited_for_behind_a_long_reader(office: Office, store: Store) -> None:
    sales(store, "A")
    with psycopg.connect(office.owner) as reader:
        reader.execute("SELECT count(*) FROM ledger.entry")
        laid = execute("forwarder", "ledger", "--to", office.owner)
        assert laid.code == 0  # nothing has to be made
        office.do("SELECT 1")
        with pytest.raises(NotNow, match="Somebody is reading"):
            headoffice_schema.lay(office.owner, months=12)
        assert office.shipper(store).go()
    assert headoffice_schema.lay(office.owner, months=12) == ([], [])


# -- the commands -----------------------------------------------------------------------------------------------------


def test_the_commands(office: Office, store: Store) -> None:
    sales(store, "A")
    around = {"OMNEO_LEDGER": office.role("s1"), "OMNEO_JOURNAL_DB": str(store.db)}
    assert execute("forwarder", "ship", "--once", **around).code == 0
    assert remote(office, "journal") == local(store.db)
    with ship_loop.only_shipper(store.db):
        second = execute("forwarder", "ship", "--once", **around)
    assert (second.code, "Another omneo-forwarder ship" in second.err) == (75, True)
    tamper(store.db, "UPDATE log SET facts = '{}' WHERE seq = 2", anew=True)
    refused = execute("forwarder", "ship", "--once", **around)
    assert (refused.code, "refuses the journal: fork" in refused.err) == (1, True)
    gone = {**around, "OMNEO_LEDGER": "postgresql://s1@/x?host=/nowhere"}
    assert execute("forwarder", "ship", "--once", **gone).code == 75
    assert execute("forwarder", "ship", "--once", "--every", 300, **around).code == 2
    secret = execute("forwarder", "ship", "--once", "--to", "postgresql://a:b@/x", OMNEO_JOURNAL_DB=str(store.db))
    assert secret.code == 78
    laid = execute("forwarder", "ledger", "--to", office.owner)
    assert (laid.code, laid.out, laid.err) == (0, "The schema is up to date.\n", "")
    page = store.root / "chain.html"
    assert execute("forwarder", "ledger", "--to", office.owner, "--page", page).code == 0
    assert "<td>s1</td>" in page.read_text()
    assert "<td>fork</td>" in page.read_text()
    short = store.root / "key"
    short.write_text("short")
    assert execute("forwarder", "ship", "--once", "--customer-key", short, **around).code == 78
    with suppress(FileNotFoundError):
        short.unlink()
