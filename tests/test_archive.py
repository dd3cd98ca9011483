"""Packs: bodies leave the journal only when they are safe elsewhere, and what a kill leaves is never a loss."""

import base64
import hashlib
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standin import Omneo, Store
from tills import Shop, broken, fork, sale

from forwarder.books import create_delivery
from forwarder.replay import step
from journal import archive, log, note, packed, redact, standalone, story
from journal.log import Entry

LATER = datetime.now(UTC) + timedelta(days=1)


def settle(shop: Shop, *seqs: int, kind: str = "delivered") -> None:
    if not shop.delivery.exists():
        log.create(shop.delivery, "delivery", {"journal": "a-test", "unknown_upto": 0})
    with closing(log.open_book(shop.delivery, "delivery", write=True)) as db:
        log.append(db, [Entry(kind, seq, None, {"omneo_id": 700 + seq}) for seq in seqs])


def run(shop: Shop, out: Path, before: datetime = LATER, **options: Any) -> list[dict[str, Any]]:
    return list(archive.archive(shop.db, shop.delivery, before, out, **options))


def here(shop: Shop) -> set[int]:
    with closing(log.open_book(shop.db, "journal", write=True)) as db:
        return {seq for (seq,) in db.execute("SELECT seq FROM body")}


def inside(out: Path) -> dict[int, bytes]:
    """Bodies in all packs of a directory."""
    return {each.row.seq: each.body for path in sorted(out.glob("*.zip")) for each in packed.read(path) if each.body}


def whole(shop: Shop, out: Path) -> None:
    """Every body that ever was is in the journal or in a pack that stands, and nothing else is wrong either."""
    assert shop.problems() == []
    for path in out.glob("*.zip"):
        assert archive.check(shop.db, path) == []


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "packs"


@pytest.fixture
def shop(shop: Shop) -> Iterator[Shop]:
    """Entries 2 to 13 are sales, all delivered but 12 (held) and 13 (waiting)."""
    for number in range(2, 14):
        shop.drop(f"{number:02d}.json", sale(f"S-{number}", meta={"note": "x" * 100 * number}), age=100 - number)
    shop.sweep()
    settle(shop, *range(2, 12))
    settle(shop, 12, kind="held")
    return shop


# -- what goes


def test_settled_bodies_go_and_the_skeleton_stays(shop: Shop, out: Path) -> None:
    bodies = dict(shop.book.execute("SELECT seq, bytes FROM body").fetchall())
    (facts,) = run(shop, out)
    assert (facts["documents"], facts["first"], facts["last"]) == (10, 2, 11)
    assert here(shop) == {12, 13}
    assert inside(out) == {seq: bodies[seq] for seq in range(2, 12)}
    whole(shop, out)
    (told,) = [each for each in shop.entries("archived") if each["about"] == 2]
    assert (told["pack"], told["sha256"]) == (facts["pack"], packed.hash_of(out / facts["pack"]))
    assert (told["state"], told["omneo_id"]) == ("delivered", 702)
    with story.both_books(shop.db, shop.delivery) as books:
        assert story.show(books, "S-2")["body"] is None
        assert [row["state"] for row in story.documents(books)] == ["delivered"] * 10 + ["held", "waiting"]
    assert run(shop, out) == []


def test_only_what_is_old_enough_goes(shop: Shop, out: Path) -> None:
    assert run(shop, out, datetime(2020, 1, 1, tzinfo=UTC)) == []
    assert len(here(shop)) == 12


def test_what_is_flagged_stays_until_the_flag_is_resolved(shop: Shop, out: Path) -> None:
    shop.drop("bad.json", broken())
    shop.sweep()
    (flag,) = shop.entries("flag")
    run(shop, out)
    assert flag["about"] in here(shop)
    log.append(
        shop.book, [Entry("resolution", flag["about"], None, {"flag": f"J{flag['seq']}", "by": "a", "note": "b"})]
    )
    run(shop, out)
    assert flag["about"] not in here(shop)
    whole(shop, out)


def test_many_documents_are_several_packs(shop: Shop, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PACKED", 4)
    monkeypatch.setattr(archive, "PIECE", 3)
    assert [facts["documents"] for facts in run(shop, out)] == [4, 4, 2]
    assert here(shop) == {12, 13}
    assert len(inside(out)) == 10
    whole(shop, out)


def test_the_same_documents_give_the_same_bytes(shop: Shop, tmp_path: Path) -> None:
    with closing(log.open_book(shop.db, "journal", write=False)) as db:
        due = [(seq, "delivered", 700 + seq) for seq in range(2, 12)]
        hashes = {packed.write(tmp_path / name, archive.documents(db, due), {"a": 1}) for name in ("one", "two")}
    assert len(hashes) == 1


def test_a_stranger_can_open_it_and_check_a_body(shop: Shop, out: Path) -> None:
    (facts,) = run(shop, out)
    with zipfile.ZipFile(out / facts["pack"]) as pack:
        assert pack.namelist() == ["README.txt", "documents.jsonl", "pack.json"]
        lines = pack.read("documents.jsonl")
        assert json.loads(pack.read("pack.json"))["sha256"] == hashlib.sha256(lines).hexdigest()
    for line in map(json.loads, lines.splitlines()):
        body = base64.b64decode(line["bytes"])
        assert hashlib.sha256(bytes.fromhex(line["salt"]) + body).hexdigest() == line["body_hash"]


def test_the_command(shop: Shop, out: Path) -> None:
    shop.book.close()
    done = shop.run("archive", "--before", "2999-01-01", "--out", str(out))
    assert done.returncode == 0
    assert "10 documents" in done.stdout
    (path,) = out.glob("*.zip")
    assert shop.run("verify").returncode == 0
    assert shop.run("verify", "--pack", str(path)).returncode == 0
    forged = rewritten(path, out / "forged", FORGED["a body"][0])
    told = shop.run("verify", "--pack", str(forged))
    assert told.returncode == 1
    assert "pack forged entry 5: the body was altered" in told.stdout
    assert "0 bodies" in shop.run("archive", "--before", "2999-01-01", "--out", str(out)).stdout


# -- what is found in a pack


def rewritten(path: Path, target: Path, change: Any) -> Path:
    """A pack as a forger makes it: everything in it fits, but for the journal."""
    documents = [change(each) for each in packed.read(path)]
    packed.write(target, [each for each in documents if each is not None], packed.manifest(path))
    return target


FORGED = {
    "nothing": (lambda each: each, None),
    "a body": (lambda each: replace(each, body=b"{}") if each.row.seq == 5 else each, (5, "altered")),
    "an entry": (
        lambda each: replace(each, row=each.row._replace(kind="return")) if each.row.seq == 5 else each,
        (5, "otherwise"),
    ),
    "a digest": (lambda each: replace(each, digest=bytes(32)) if each.row.seq == 5 else each, (5, "otherwise")),
    "a body that is gone": (lambda each: each.without_body() if each.row.seq == 5 else each, (5, "no entry says why")),
    "a document that is gone": (lambda each: None if each.row.seq == 5 else each, (0, "SHA-256")),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_pack_is_found(shop: Shop, out: Path, what: str) -> None:
    (facts,) = run(shop, out)
    change, expected = FORGED[what]
    problems = archive.check(shop.db, rewritten(out / facts["pack"], out / "forged.zip", change))
    found = [(each["seq"], each["what"]) for each in problems]
    if expected is None:
        assert found == []
        return
    assert any(seq == expected[0] and expected[1] in what for seq, what in found)
    assert found[0][0] == 0  # its hash is not the journal's either


def test_a_pack_that_was_damaged_anywhere_is_found_and_nothing_is_raised(shop: Shop, out: Path, tmp_path: Path) -> None:
    (facts,) = run(shop, out)
    raw = (out / facts["pack"]).read_bytes()
    dice = random.Random(5)
    for turn in range(500):
        bad = bytearray(raw)
        at = dice.randrange(len(raw))
        bad[at] ^= 1 << dice.randrange(8)
        spoilt = bytes(bad[: dice.randrange(1, len(raw))] if turn % 4 == 0 else bad)
        path = tmp_path / "spoilt.zip"
        path.write_bytes(spoilt)
        assert archive.check(shop.db, path) != [], at


def test_a_pack_of_another_journal_is_said_to_be_one(shop: Shop, out: Path, tmp_path: Path) -> None:
    (facts,) = run(shop, out)
    other = tmp_path / "other.db"
    log.create(other, "journal", {"journal": "another"})
    assert [each["what"] for each in archive.check(other, out / facts["pack"])] == ["it is a pack of another journal"]


# -- signed


@pytest.fixture
def pair() -> tuple[note.Key, note.Key]:
    """The shop's key, and one that somebody else has made under the same name."""
    mine, other = note.generate("omneo-journal/a-test"), note.generate("omneo-journal/a-test")
    return note.private_key(mine[0]), note.private_key(other[0])


def resigned(path: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The files of a pack, changed."""
    with zipfile.ZipFile(path) as pack:
        files = {name: pack.read(name) for name in pack.namelist()}
    change(files)
    with zipfile.ZipFile(target, "w") as pack:
        for name, raw in files.items():
            pack.writestr(name, raw)
    return target


def test_with_a_key_a_pack_is_signed_and_whoever_has_the_public_one_can_tell(
    shop: Shop, out: Path, pair: tuple[note.Key, note.Key]
) -> None:
    (facts,) = run(shop, out, key=pair[0])
    path = out / facts["pack"]
    with zipfile.ZipFile(path) as pack:
        assert pack.namelist() == ["README.txt", "documents.jsonl", "pack.json", "pack.json.sig"]
        signed, said = pack.read("pack.json.sig").decode(), pack.read("pack.json").decode()
    assert note.read(signed, [note.public_of(pair[0])]) == said
    assert standalone.trusted(signed, public(pair[0]))
    for keys in ([], [note.public_of(pair[0])], [note.public_of(each) for each in pair]):
        assert archive.check(shop.db, path, keys) == []
    (found,) = archive.check(shop.db, path, [note.public_of(pair[1])])
    assert found["what"].startswith("its signature is not to be trusted")


def public(key: note.Key) -> str:
    raw = base64.b64encode(note.ED25519 + note.public_of(key).raw).decode()
    return f"{key.name}+{key.number.hex()}+{raw}"


def test_the_same_documents_and_key_give_the_same_bytes(
    shop: Shop, tmp_path: Path, pair: tuple[note.Key, note.Key]
) -> None:
    with closing(log.open_book(shop.db, "journal", write=False)) as db:
        due = [(seq, "delivered", 700 + seq) for seq in range(2, 12)]
        made = {packed.write(tmp_path / name, archive.documents(db, due), {"a": 1}, pair[0]) for name in ("one", "two")}
    assert len(made) == 1


def test_a_signature_that_was_altered_or_is_anothers_is_found(
    shop: Shop, out: Path, tmp_path: Path, pair: tuple[note.Key, note.Key]
) -> None:
    (facts,) = run(shop, out, key=pair[0])
    keys, forged = [note.public_of(pair[0])], tmp_path / "forged.zip"

    def what(change: Callable[[dict[str, bytes]], None]) -> set[str]:
        problems = archive.check(shop.db, resigned(out / facts["pack"], forged, change), keys)
        assert any("SHA-256" in each["what"] for each in problems)
        return {each["what"] for each in problems if "SHA-256" not in each["what"]}

    def other_key(files: dict[str, bytes]) -> None:
        files["pack.json.sig"] = note.sign(files["pack.json"].decode(), pair[1]).encode()

    def other_text(files: dict[str, bytes]) -> None:
        files["pack.json.sig"] = note.sign('{"pack":1}\n', pair[0]).encode()

    def no_note(files: dict[str, bytes]) -> None:
        files["pack.json.sig"] = b"signed, the manager"

    def no_text(files: dict[str, bytes]) -> None:
        files["pack.json.sig"] = b"\xff\xfe"

    assert what(other_key) == {"its signature is not to be trusted: it is not signed with a key that was given"}
    assert what(other_text) == {"what was signed is something else than what the pack says"}
    assert what(no_note) == {"its signature is not to be trusted: it is no signed note"}
    assert what(no_text) == {"forged.zip is no pack, or a damaged one"}
    assert what(lambda files: files.pop("pack.json.sig") and None) == set()  # the journal knows the file's SHA-256


def test_another_journals_key_signs_nothing(shop: Shop, out: Path) -> None:
    key = note.private_key(note.generate("omneo-journal/another")[0])
    with pytest.raises(log.Unusable, match="is for omneo-journal/another"):
        run(shop, out, key=key)
    with pytest.raises(log.Unusable, match="is for omneo-journal/another"):
        redact.redact(shop.db, shop.delivery, [5], "Ann", "she asked", key=key)
    assert len(here(shop)) == 12
    assert not out.exists()


def test_a_pack_that_is_made_anew_is_signed_anew_or_that_is_said(
    shop: Shop, out: Path, pair: tuple[note.Key, note.Key]
) -> None:
    (facts,) = run(shop, out, key=pair[0])
    path, keys = out / facts["pack"], [note.public_of(pair[0])]
    done = redact.redact(shop.db, shop.delivery, [5], "Ann", "she asked", packs=[path], key=pair[0])
    assert (done.packs, done.unsigned, packed.is_signed(path)) == ([path.name], [], True)
    assert archive.check(shop.db, path, keys) == []
    done = redact.redact(shop.db, shop.delivery, [6], "Ann", "she asked", packs=[path])
    assert (done.packs, done.unsigned, packed.is_signed(path)) == ([path.name], [path.name], False)
    assert archive.check(shop.db, path, keys) == []
    done = redact.redact(shop.db, shop.delivery, [7], "Ann", "she asked", packs=[path])
    assert done.unsigned == []
    assert sorted(inside(out)) == [2, 3, 4, 8, 9, 10, 11]


def test_the_commands_take_the_key_as_ingest_does(shop: Shop, out: Path, tmp_path: Path) -> None:
    shop.book.close()
    private, key = tmp_path / "shop.key", shop.run("keygen", "--out", str(tmp_path / "shop.key")).stdout.strip()
    done = shop.run("archive", "--before", "2999-01-01", "--out", str(out), "--key", str(private))
    assert done.returncode == 0, done.stderr
    (path,) = out.iterdir()
    checkpoint = shop.run("checkpoint", "--key", str(private))
    assert checkpoint.returncode == 0, checkpoint.stderr
    verified = shop.run("verify", "--pack", str(path), "--key", key)
    assert (verified.returncode, "Packs with a good signature: 1 of 1" in verified.stdout) == (0, True), verified
    another = note.generate("omneo-journal/a-test")[1]
    assert shop.run("verify", "--pack", str(path), "--key", another).returncode == 1
    redacted = ["redact", "S-5", "--by", "Ann", "--reason", "she asked", "--pack", str(path)]
    assert "is not signed any more" in shop.run(*redacted).stdout
    assert "is not signed any more" not in shop.run(*redacted[:1], "S-6", *redacted[2:], "--key", str(private)).stdout
    assert "Packs with a good signature: 1 of 1" in shop.run("verify", "--pack", str(path), "--key", key).stdout


# -- redactions


def test_a_redaction_makes_the_pack_anew_without_the_body(shop: Shop, out: Path) -> None:
    (facts,) = run(shop, out)
    path = out / facts["pack"]
    old = path.read_bytes()
    with pytest.raises(log.NoSuch, match="--pack"):
        redact.redact(shop.db, shop.delivery, [5], "Ann", "she asked")
    done = redact.redact(shop.db, shop.delivery, [5, 13], "Ann", "she asked", packs=[path], even_unsent=True)
    assert (done.gone, done.packs, done.elsewhere) == ([5, 13], [facts["pack"]], [])
    assert sorted(inside(out)) == [2, 3, 4, 6, 7, 8, 9, 10, 11]
    whole(shop, out)
    (out / "old.zip").write_bytes(old)
    problems = [each["what"] for each in archive.check(shop.db, out / "old.zip")]
    assert problems == [archive.OLDER, "it was redacted, and is in this pack all the same"]
    redact.redact(shop.db, shop.delivery, [6], "Ann", "she asked", packs=[path])
    assert archive.check(shop.db, path) == []
    assert 6 not in {each.row.seq for each in packed.read(path) if each.body}


def test_a_pack_that_was_altered_is_not_made_anew(shop: Shop, out: Path) -> None:
    (facts,) = run(shop, out)
    path = out / facts["pack"]
    forged = rewritten(path, out / "forged.zip", FORGED["a digest"][0])
    forged.rename(path)
    with pytest.raises(log.Unusable, match="not as the journal knows it"):
        redact.redact(shop.db, shop.delivery, [6], "Ann", "she asked", packs=[path])
    assert shop.entries("redaction") == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_while_a_pack_is_redacted_leaves_what_the_same_command_finishes(tmp_path: Path, when: str) -> None:
    for at in range(1 + (when == "after"), 150, 3):
        shop, out = Shop(tmp_path / str(at)), tmp_path / str(at) / "packs"
        for number in (2, 3):
            shop.drop(f"{number}.json", sale(f"S-{number}", meta={"note": f"MARK{number}"}), age=10 - number)
        shop.sweep()
        settle(shop, 2, 3)
        (facts,) = run(shop, out)
        shop.book.close()
        paths = [out / facts["pack"]]

        def act(shop: Shop = shop, paths: list[Path] = paths) -> None:
            redact.redact(shop.db, shop.delivery, [2], "Ann", "she asked", packs=paths)

        died = fork(act, die_at=(at, when))
        here(shop)  # whoever opens it next undoes what a killed commit has left
        assert shop.problems() == []
        problems = archive.check(shop.db, paths[0])
        if shop.entries("redaction") == []:
            assert problems == []
        if died and set(inside(out)) == {2, 3}:
            act()
        assert set(inside(out)) == {3}
        whole(shop, out)
        assert len(shop.entries("redaction")) == 1
        if died == 0:
            assert at > 15
            return
    pytest.fail("it never got through")


# -- killed


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_loses_no_body_and_the_next_run_goes_on(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "PIECE", 2)
    monkeypatch.setattr(archive, "PACKED", 3)
    monkeypatch.setattr(archive, "BREATH_S", 0)
    for at in range(1 + (when == "after"), 300, 3):
        shop, out = Shop(tmp_path / str(at)), tmp_path / str(at) / "packs"
        for number in range(2, 8):
            shop.drop(f"{number}.json", sale(f"S-{number}"), age=10 - number)
        shop.sweep()
        settle(shop, *range(2, 7))
        shop.book.close()
        died = fork(lambda shop=shop, out=out: run(shop, out), die_at=(at, when))
        left = here(shop)
        assert left | set(inside(out)) == set(range(2, 8))
        whole(shop, out)
        known = {facts["pack"] for facts in _known(shop)}
        assert {path.name for path in out.glob("*.zip")} <= known
        run(shop, out)
        assert here(shop) == {7}
        assert set(inside(out)) == set(range(2, 7))
        assert [each["about"] for each in shop.entries("archived")] == [2, 3, 4, 5, 6]
        assert [path.name for path in out.iterdir() if path.suffix != ".zip"] == []
        whole(shop, out)
        if died == 0:
            assert at > 40
            return
    pytest.fail("it never got through")


def _known(shop: Shop) -> list[dict[str, Any]]:
    with closing(log.open_book(shop.db, "journal", write=False)) as db:
        return list(archive.known(db))


def test_a_redaction_between_a_kill_and_the_next_run_knows_of_the_copy(shop: Shop, out: Path) -> None:
    shop.book.close()

    def act() -> None:
        archive._let_go = lambda *_: (_ for _ in ()).throw(SystemExit)  # type: ignore[assignment]
        run(shop, out)

    fork(act)
    (path,) = out.glob("*.zip")
    assert len(here(shop)) == 12
    done = redact.redact(shop.db, shop.delivery, [5], "Ann", "she asked")
    assert done.elsewhere == [path.name]
    assert archive.check(shop.db, path)[0]["seq"] == 5
    redact.redact(shop.db, shop.delivery, [5], "Ann", "again", packs=[path])
    assert archive.check(shop.db, path) == []
    run(shop, out)
    assert here(shop) == {12, 13}
    assert 5 not in inside(out)
    whole(shop, out)


def test_a_disk_that_gives_back_something_else_deletes_nothing(
    shop: Shop, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = packed.write

    def lying(path: Path, *args: Any) -> str:
        digest = real(path, *args)
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
        return digest

    monkeypatch.setattr(packed, "write", lying)
    with pytest.raises(log.NotNow, match="disk"):
        run(shop, out)
    assert len(here(shop)) == 12
    assert list(out.iterdir()) == []


# -- the forwarder


def test_a_new_delivery_book_takes_over_what_was_archived(store: Store, omneo: Omneo, token: Path, out: Path) -> None:
    with store.forwarding(omneo.url, token=token) as forwarder:
        store.take(*(sale(f"S-{number}") for number in range(100)))
        while step(forwarder) is not None:
            pass
    list(archive.archive(store.db, store.delivery, LATER, out))
    store.take(sale("S-new"))
    store.delivery.unlink()
    create_delivery(store.db, store.delivery)
    asked = len(omneo.asked())
    with store.forwarding(omneo.url, token=token) as forwarder:
        while step(forwarder) is not None:
            pass
    assert set(store.states().values()) == {"delivered"}
    assert store.show("S-7")["omneo_id"] is not None
    assert len(omneo.asked()) - asked <= 3  # for the new one alone
    with story.both_books(store.db, store.delivery) as books:
        assert story.close(books)["waiting"] == 0
    store.verified()


def test_a_pack_that_can_not_be_read_to_its_end_is_said_in_a_sentence(tmp_path: Path) -> None:
    pack = tmp_path / "journal-1.zip"
    pack.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(log.Unusable, match=r"^journal-1.zip is no pack, or a damaged one$"):
        list(packed.read(pack))


def test_a_pack_and_its_directory_are_on_disk_before_anything_leaves(
    shop: Shop, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made them may have been killed, or failed, in between: so each run sees to it itself."""

    class Killed(BaseException):
        pass

    def dies(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_let_go", dies)
        with pytest.raises(Killed):
            run(shop, out)
    assert len(list(out.glob("*.zip"))) == 1
    done: list[str] = []
    sync, erase = log.sync_directory, log.erase
    monkeypatch.setattr(log, "sync_directory", lambda path: (done.append(path.name), sync(path)))
    monkeypatch.setattr(log, "erase", lambda db, seq: (done.append("erased"), erase(db, seq))[1])
    run(shop, out)
    assert done[:3] == [out.parent.name, out.name, "erased"]
    assert len(list(out.glob("*.zip"))) == 1
