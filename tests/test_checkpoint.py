"""Checkpoints: made on demand and by themselves, over what was there, and what they show that the chain can't."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_verify import rewrite, tamper
from tills import Shop, sale

from journal import checkpoint, ingest, log, note, tree
from journal.checkpoint import Keeper, Statement
from journal.verify import examine, verify

NOON = datetime(2025, 6, 15, 12, 0, tzinfo=UTC)


@pytest.fixture
def pair(shop: Shop) -> Iterator[tuple[note.Key, note.Key]]:
    """A private and a public key of this journal."""
    private, public = note.generate("omneo-journal/a-test")
    yield note.private_key(private), note.public_key(public)
    shop.book.close()


def fill(shop: Shop, *names: str) -> None:
    for name in names:
        shop.drop(f"{name}.json", sale(name))
    shop.sweep()


def digests(shop: Shop) -> list[bytes]:
    return [digest for (digest,) in shop.book.execute("SELECT digest FROM log ORDER BY seq")]


def keep(shop: Shop, made: checkpoint.Made) -> checkpoint.Taken:
    path = shop.root / f"taken-{made[1].size}.txt"
    path.write_text(made[2] or made[1].text(), "utf-8")
    return checkpoint.taken(path)


# -- making them


def test_a_checkpoint_is_over_everything_before_its_entry(shop: Shop, pair: tuple[note.Key, note.Key]) -> None:
    fill(shop, "S-1", "S-2")
    seq, said, signed = checkpoint.make(shop.book, None, pair[0])
    assert (seq, said.size, said.origin) == (4, 3, "omneo-journal/a-test")
    assert said.root == tree.over([tree.leaf(each) for each in digests(shop)])(0, 3)
    assert checkpoint.parse(note.read(signed or "", [pair[1]])) == said
    [entry] = shop.entries("checkpoint")
    assert (entry["size"], entry["root"], entry["note"]) == (3, said.root.hex(), signed)


def test_the_next_one_goes_on_from_the_last(shop: Shop, pair: tuple[note.Key, note.Key]) -> None:
    for number in range(12):
        fill(shop, f"S-{number}")
        _, said, _ = checkpoint.make(shop.book, None, pair[0])
        whole = tree.Range()
        whole.extend(digests(shop)[: said.size])
        assert said.root == whole.root()
    assert verify(shop.db, shop.delivery)["ok"]


def test_one_that_somebody_has_spoilt_is_not_gone_on_from(shop: Shop, pair: tuple[note.Key, note.Key]) -> None:
    for facts in ({"size": 1, "range": ["00" * 32]}, {"size": "x"}, {"size": 3, "range": ["zz"]}, {}):
        log.append(shop.book, [log.Entry("checkpoint", facts=facts)])
        _, said, _ = checkpoint.make(shop.book, None, pair[0])
        whole = tree.Range()
        whole.extend(digests(shop)[: said.size])
        assert said.root == whole.root()


def test_the_delivery_book_is_vouched_for_within(shop: Shop) -> None:
    _, said, signed = checkpoint.make(shop.book, (7, bytes(32)), None)
    assert (said.size, signed) == (2, None)
    assert [entry["kind"] for entry in shop.entries()] == ["created", "vouched", "checkpoint"]
    assert shop.entries("vouched")[0]["other_book"] == {"entries": 7, "head": "00" * 32}


def test_another_journal_s_key_is_refused(shop: Shop) -> None:
    other = note.private_key(note.generate("omneo-journal/another")[0])
    with pytest.raises(log.Unusable, match="keygen"):
        checkpoint.make(shop.book, None, other)
    with pytest.raises(log.Unusable, match="keygen"):
        Keeper(shop.book, other, 10, lambda: None, say=shop.say)


# -- by themselves


def test_one_is_made_after_so_many_entries(shop: Shop, pair: tuple[note.Key, note.Key]) -> None:
    keeper = Keeper(shop.book, pair[0], 5, lambda: None, say=shop.say)
    for number in range(20):
        keeper()
        fill(shop, f"S-{number}")
    seqs = [seq for (seq,) in shop.book.execute("SELECT seq FROM log WHERE kind = 'checkpoint'")]
    assert seqs == [6, 12, 18, 24]
    assert [facts["size"] for event, facts in shop.said if event == "checkpoint"] == [5, 11, 17, 23]


def test_one_is_made_when_the_day_has_changed(shop: Shop, pair: tuple[note.Key, note.Key]) -> None:
    clock = [NOON]
    keeper = Keeper(shop.book, pair[0], 1000, lambda: None, say=shop.say, now=lambda: clock[0])
    keeper()  # the journal is of another day
    for hours in (0, 1, 24, 24, 25, 72):
        clock[0] = NOON + timedelta(hours=hours)
        keeper()
    assert len(shop.entries("checkpoint")) == 3 + 0


def test_the_day_is_closed_before_the_next_day_s_sales(shop: Shop) -> None:
    order: list[str] = []
    shop.drop("1.json", sale("S-1"))
    ingest.once(shop.files, shop.book, say=shop.say, keep=lambda: order.append(f"{len(shop.sales())} sales"))
    assert order == ["0 sales"]


def test_ingest_makes_them_with_a_key_from_systemd(shop: Shop) -> None:
    shop.book.close()
    made = shop.run("keygen", "--out", str(shop.root))
    assert made.returncode == 0
    (shop.root / "key").mkdir()
    (shop.root / "omneo-journal-key").rename(shop.root / "key" / "omneo-journal-key")
    shop.drop("1.json", sale("S-1"))
    shop.environment = lambda: {  # type: ignore[method-assign]
        **Shop.environment(shop),
        "CREDENTIALS_DIRECTORY": str(shop.root / "key"),
        "OMNEO_CHECKPOINT_EVERY": "1",
    }
    assert shop.run("ingest", "--once").returncode == 0
    told = shop.run("verify", "--key", made.stdout.strip())
    assert "Checkpoints with a good signature: 1" in told.stdout
    assert told.returncode == 0


# -- what they show


def test_a_journal_still_fits_what_was_taken_away(shop: Shop, pair: tuple[note.Key, note.Key]) -> None:
    taken = []
    for number in range(8):
        fill(shop, f"S-{number}")
        taken.append(keep(shop, checkpoint.make(shop.book, None, pair[0])))
    told = examine(shop.db, shop.delivery, [pair[1]], taken)
    assert told.told["ok"]
    assert told.signed == 8


def test_a_clean_cut_shows_against_one(shop: Shop, pair: tuple[note.Key, note.Key]) -> None:
    fill(shop, "S-1", "S-2", "S-3")
    taken = keep(shop, checkpoint.make(shop.book, None, pair[0]))
    shop.book.close()
    tamper(shop.db, "DELETE FROM log WHERE seq > 2", "DELETE FROM body WHERE seq > 2")
    assert verify(shop.db, shop.delivery)["ok"]
    problems = examine(shop.db, shop.delivery, [pair[1]], [taken]).told["problems"]
    assert [(each["book"], each["seq"]) for each in problems] == [("journal", 3)]
    assert "the end was cut off" in problems[0]["what"]


def test_a_journal_that_was_computed_anew_shows_against_one(shop: Shop) -> None:
    fill(shop, "S-1", "S-2", "S-3")
    root = tree.Range()
    root.extend(digests(shop))
    said = Statement("omneo-journal/a-test", root.size, root.root())
    path = shop.root / "paper.txt"
    path.write_text(said.printed().upper(), "utf-8")  # typed in from paper
    shop.book.close()
    rewrite(shop.db, lambda row: row.__setitem__(5, '{"total":"1.00"}') if row[0] == 3 else None)
    assert verify(shop.db, shop.delivery)["ok"]
    problems = examine(shop.db, shop.delivery, [], [checkpoint.taken(path)]).told["problems"]
    assert [(each["seq"], "rewritten" in each["what"]) for each in problems] == [(4, True)]


def test_a_rewritten_entry_is_between_two_checkpoints(shop: Shop, pair: tuple[note.Key, note.Key]) -> None:
    for number in range(4):
        fill(shop, f"S-{number}")
        checkpoint.make(shop.book, None, pair[0])
    shop.book.close()
    rewrite(shop.db, lambda row: row.__setitem__(4, "S-9") if row[0] == 4 else None)
    problems = verify(shop.db, shop.delivery)["problems"]
    assert [each["seq"] for each in problems] == [5, 7, 9]  # digests of old checkpoint entries are other ones too


SPOILT = {
    "nothing": {},
    "no numbers": {"size": "3", "root": "zz", "range": []},
    "another size": {"size": 2},
    "a size that is no whole number": {"size": 3.0},
    "another root": {"root": "00" * 32},
    "no range": {"range": []},
    "a note that is none": {"note": "hello"},
    "a note that is a number": {"note": 7},
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_checkpoint_that_makes_no_sense_is_found(shop: Shop, how: str) -> None:
    fill(shop, "S-1", "S-2")
    root = tree.Range()
    root.extend(digests(shop))
    facts = {"size": 3, "root": root.root().hex(), "range": [each.hex() for each in root.hashes]}
    log.append(shop.book, [log.Entry("checkpoint", facts=SPOILT[how] and facts | SPOILT[how])])
    assert [(each["seq"], each["what"]) for each in shop.problems()] == [(4, "this checkpoint makes no sense")]


def test_a_note_that_says_something_else_is_found(shop: Shop, pair: tuple[note.Key, note.Key]) -> None:
    fill(shop, "S-1", "S-2")
    root = tree.Range()
    root.extend(digests(shop))
    facts = {"size": 3, "root": root.root().hex(), "range": [each.hex() for each in root.hashes]}
    signed = note.sign(Statement("omneo-journal/a-test", 3, bytes(32)).text(), pair[0])
    log.append(shop.book, [log.Entry("checkpoint", facts=facts | {"note": signed})])
    assert "something else" in shop.problems()[0]["what"]


def test_another_s_signature_is_found_by_who_has_the_key(shop: Shop, pair: tuple[note.Key, note.Key]) -> None:
    fill(shop, "S-1")
    thief = note.private_key(note.generate("omneo-journal/a-test")[0])
    taken = keep(shop, checkpoint.make(shop.book, None, thief))
    assert examine(shop.db, shop.delivery, [], [taken]).told["ok"]
    problems = examine(shop.db, shop.delivery, [pair[1]], [taken]).told["problems"]
    assert [each["seq"] for each in problems] == [3, 2, 0]


def test_signatures_that_were_left_out_are_missed_by_who_has_the_key(
    shop: Shop, pair: tuple[note.Key, note.Key]
) -> None:
    fill(shop, "S-1")
    checkpoint.make(shop.book, None, None)
    assert examine(shop.db, shop.delivery).told["ok"]
    (problem,) = examine(shop.db, shop.delivery, [pair[1]]).told["problems"]
    assert (problem["seq"], "no checkpoint is signed" in problem["what"]) == (0, True)


def test_one_of_another_journal_is_named(shop: Shop) -> None:
    path = shop.root / "other.txt"
    path.write_text(Statement("omneo-journal/another", 1, bytes(32)).text(), "utf-8")
    problems = examine(shop.db, shop.delivery, [], [checkpoint.taken(path)]).told["problems"]
    assert "of another journal" in problems[0]["what"]


# -- files


@pytest.mark.parametrize("text", ["", "x", "a\n1\n", "a\n01\nAAAA\n", "a\n1\nAAAA\n", "a\nx\nAAAA\n"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cp.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(log.Unusable, match="can't be used as a checkpoint"):
        checkpoint.taken(path)


def test_a_slip_in_a_typed_one_is_named(tmp_path: Path) -> None:
    said = Statement("omneo-journal/0e5d8a9c-6f0d", 12, bytes(range(32)))
    path = tmp_path / "cp.txt"
    path.write_text(said.printed(), "utf-8")
    assert checkpoint.taken(path).root == said.root
    path.write_text(said.printed().replace("0001", "0011"), "utf-8")
    with pytest.raises(log.Unusable, match="mistyped"):
        checkpoint.taken(path)


def test_that_it_only_grew_can_be_proven_without_the_journal(shop: Shop) -> None:
    fill(shop, "S-1", "S-2")
    shop.book.close()
    public = shop.run("keygen", "--out", str(shop.root / "key")).stdout.strip()
    for name in ("monday", "tuesday"):
        assert shop.run("checkpoint", "--key", str(shop.root / "key"), "--out", str(shop.root / name)).returncode == 0
    out = str(shop.root / "growth")
    assert "Name a document" in shop.run("prove", "--out", out).stderr
    assert (
        "in this order"
        in shop.run(
            "prove", "--since", str(shop.root / "tuesday"), "--checkpoint", str(shop.root / "monday"), "--out", out
        ).stderr
    )
    assert shop.run("prove", "--since", str(shop.root / "monday"), "--out", out).returncode == 0
    told = shop.run("verify", "--evidence", out, "--checkpoint", str(shop.root / "monday"), "--key", public)
    assert (told.returncode, "none of those 3 was changed" in told.stdout) == (0, True), told
    assert "give the checkpoint" in shop.run("verify", "--evidence", out, "--key", public).stdout


def test_the_commands(shop: Shop) -> None:
    shop.book.close()
    key, out = shop.root / "key", shop.root / "cp.txt"
    made = shop.run("keygen", "--out", str(key))
    assert key.stat().st_mode & 0o777 == 0o600
    public = made.stdout.strip()
    assert shop.run("keygen", "--out", str(key)).returncode == 78
    assert shop.run("checkpoint", "--key", str(key), "--out", str(out)).returncode == 0
    printed = shop.run("checkpoint", "--key", str(key), "--print").stdout
    assert printed.startswith("omneo-journal a-test\nentries 2\n")
    assert "not signed" in shop.run("checkpoint").stderr
    told = shop.run("verify", "--checkpoint", str(out), "--key", public)
    assert (told.returncode, "It still begins" in told.stdout) == (0, True)
    assert shop.run("verify", "--checkpoint", str(out), "--key", str(key)).returncode == 78
    found = json.loads(shop.run("verify", "--json", "--checkpoint", str(out)).stdout)
    assert found.keys() == {"ok", "entries", "head", "delivery", "problems"}
    with closing(log.open_book(shop.db, "journal", write=True)) as db:
        assert log.head(db)[0] == 4
