"""What somebody can do to a file of evidence, or to a proof, before the auditor gets it."""

import base64
import json
import random
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from journal import chain, log, note, tree
from journal.checkpoint import Statement
from tests.tamper.deeds import ANYWHERE, Deed

Files = dict[str, bytes]
Do = Callable[[Files, random.Random], Deed | None]


def unpack(path: Path) -> Files:
    """What is in an evidence pack."""
    with zipfile.ZipFile(path) as pack:
        return {name: pack.read(name) for name in pack.namelist()}


def pack(path: Path, files: Files, *, sums: bool = True) -> None:
    """Written anew, with sums that fit."""
    if sums:
        listed = [f"{sha256(raw).hexdigest()}  {name}\n" for name, raw in files.items() if name != "SHA256SUMS"]
        files["SHA256SUMS"] = "".join(listed).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, raw in files.items():
            made.writestr(name, raw)


def lines(files: Files, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files.get(name, b"").splitlines()]


def put(files: Files, name: str, told: list[dict[str, Any]]) -> None:
    files[name] = b"".join(log.as_json(each).encode() + b"\n" for each in told)


def some(files: Files, dice: random.Random) -> tuple[str, str]:
    """A book of the pack, and its file."""
    books = [book for book in ("journal", "delivery") if files.get(f"{book}.jsonl")]
    book = dice.choice(books)
    return book, f"{book}.jsonl"


# -- deeds, after which the sums are made to fit


def a_fact(files: Files, dice: random.Random) -> Deed | None:
    """One column of one line."""
    book, name = some(files, dice)
    told = lines(files, name)
    each = dice.choice(told)
    column = dice.choice(["facts", "at", "kind", "external_id", "about", "digest", "body_hash"])
    other = {"about": 999, "digest": "ab" * 32, "body_hash": "cd" * 32, "kind": "flag"}.get(column, '{"total":"1.00"}')
    if each[column] == other:
        return None
    each[column] = other
    put(files, name, told)
    return Deed({(book, each["seq"])})


def a_document(files: Files, dice: random.Random) -> Deed | None:
    """A body, its salt, or both are gone."""
    told = lines(files, "journal.jsonl")
    bodies = [each for each in told if each["body"]]
    if not bodies:
        return None
    each = dice.choice(bodies)
    what = dice.choice(["body", "salt", "gone"])
    if what == "gone":
        each["body"] = each["salt"] = None
    else:
        each[what] = each[what].replace("1", "2") if what == "body" else "00" * 16
    put(files, "journal.jsonl", told)
    return Deed({("journal", each["seq"])})


def a_line_out(files: Files, dice: random.Random) -> Deed | None:
    """An entry that stood between two others."""
    book, name = some(files, dice)
    told = lines(files, name)
    if len(told) < 3:
        return None
    at = dice.randrange(1, len(told) - 1)
    del told[at]
    put(files, name, told)
    return Deed({(book, told[at]["seq"])})


def the_order(files: Files, dice: random.Random) -> Deed | None:
    """Two lines."""
    book, name = some(files, dice)
    told = lines(files, name)
    if len(told) < 2:
        return None
    one, two = sorted(dice.sample(range(len(told)), 2))
    told[one], told[two] = told[two], told[one]
    put(files, name, told)
    return Deed({(book, told[one]["seq"])})


def rechain(files: Files, dice: random.Random) -> int:
    """An entry is changed and all that can be computed is computed anew; the notes can't be signed anew."""
    told, manifest = lines(files, "journal.jsonl"), json.loads(files["manifest.json"])
    place = manifest["journal"]
    grown = tree.Range(place["first"] - 1, [bytes.fromhex(each) for each in place["range"]])
    before = bytes.fromhex(place["before"])
    changed = dice.choice([each for each in told if each["kind"] not in {"created", "checkpoint"}] or told)
    changed["facts"] = log.as_json(json.loads(changed["facts"]) | {"total": "1.00"})
    for each in told:
        if each["kind"] == "checkpoint":
            root = {"size": grown.size, "root": grown.root().hex(), "range": [one.hex() for one in grown.hashes]}
            each["facts"] = log.as_json(root)
        hashed = each["body_hash"] and bytes.fromhex(each["body_hash"])
        columns = (each["seq"], each["at"], each["kind"], each["about"], each["external_id"], each["facts"], hashed)
        before = chain.link(before, chain.Row(*columns))
        each["digest"] = before.hex()
        grown.extend([before])
    for leaves, root in place["after"]:
        grown.add(bytes.fromhex(root), leaves)
    place["root"] = grown.root().hex()
    files["manifest.json"] = json.dumps(manifest).encode()
    put(files, "journal.jsonl", told)
    return int(changed["seq"])


def rewritten(files: Files, dice: random.Random) -> Deed | None:
    """So far that only the checkpoints' notes still say what was."""
    sizes = [int(name.partition("/")[2].partition(".")[0]) for name in files if name.startswith("checkpoints/")]
    changed = rechain(files, dice)
    if not any(size >= changed for size in sizes):
        return None
    delivery = [("delivery", each["seq"]) for each in lines(files, "delivery.jsonl")]
    return Deed({("journal", size) for size in sizes if size >= changed} | {*delivery})


def signed_anew(files: Files, dice: random.Random) -> Deed | None:
    """And the notes too, with another key."""
    notes = sorted(name for name in files if name.startswith("checkpoints/") and b"\n\n" in files[name])
    changed = rechain(files, dice)
    manifest = json.loads(files["manifest.json"])
    place = manifest["journal"]
    grown = tree.Range(place["first"] - 1, [bytes.fromhex(each) for each in place["range"]])
    roots = {grown.size: grown.root()}
    for each in lines(files, "journal.jsonl"):
        grown.extend([bytes.fromhex(each["digest"])])
        roots[grown.size] = grown.root()
    for leaves, root in place["after"]:
        grown.add(bytes.fromhex(root), leaves)
        roots[grown.size] = grown.root()
    private = note.private_key(note.generate(manifest["origin"])[0])
    sizes = [int(name.partition("/")[2].partition(".")[0]) for name in notes]
    for name, size in zip(notes, sizes, strict=True):
        files[name] = note.sign(Statement(manifest["origin"], size, roots[size]).text(), private).encode()
    if not any(size >= changed for size in sizes):
        return None
    return Deed({("journal", size) for size in sizes}, key=True)


def a_word_for_a_body(files: Files, dice: random.Random) -> Deed | None:
    """A body goes, and a redaction that nobody made is said to have come later."""
    told = lines(files, "journal.jsonl")
    bodies = [each for each in told if each["body"]]
    if not bodies:
        return None
    each = dice.choice(bodies)
    each["body"] = each["salt"] = None
    later = lines(files, "later.jsonl")
    seq = json.loads(files["manifest.json"])["journal"]["entries"]
    row = chain.Row(seq, each["at"], "redaction", each["seq"], None, '{"by":"Ann"}', None)
    digest = chain.link(bytes(32), row)
    later.append(
        row._asdict()
        | {"body_hash": None, "digest": digest.hex(), "before": "00" * 32, "path": [], "salt": None, "body": None}
    )
    put(files, "journal.jsonl", told)
    put(files, "later.jsonl", later)
    return Deed({("journal", seq)})


def fewer_entries(files: Files, dice: random.Random) -> Deed | None:
    """The first or last entries of the days are left out, and the hashes made to fit."""
    told, manifest = lines(files, "journal.jsonl"), json.loads(files["manifest.json"])
    place = manifest["journal"]
    within = [manifest["low"] <= each["at"] < manifest["high"] for each in told]
    if len(told) < 4 or not within[1] or not within[-2]:
        return None
    grown = tree.Range(place["first"] - 1, [bytes.fromhex(each) for each in place["range"]])
    if dice.random() < 0.5:
        if not within[2]:
            return None
        grown.extend([bytes.fromhex(each["digest"]) for each in told[:2]])
        place |= {"first": told[2]["seq"], "before": told[1]["digest"], "range": [each.hex() for each in grown.hashes]}
        told = told[2:]
    else:
        if not within[-3]:
            return None
        cut = told[-2:]
        place["after"] = [[1, tree.leaf(bytes.fromhex(each["digest"])).hex()] for each in cut] + place["after"]
        told = told[:-2]
    files["manifest.json"] = json.dumps(manifest).encode()
    put(files, "journal.jsonl", told)
    return Deed(ANYWHERE)


def a_note(files: Files, dice: random.Random) -> Deed | None:
    """A checkpoint says something else."""
    names = [name for name in files if name.startswith("checkpoints/")]
    if not names:
        return None
    name = dice.choice(names)
    parts = files[name].decode().split("\n")
    size = int(parts[1])
    parts[2] = base64.b64encode(dice.randbytes(32)).decode()
    files[name] = "\n".join(parts).encode()
    return Deed({("journal", size)})


DEEDS: dict[str, Do] = {
    "evidence: a fact": a_fact,
    "evidence: a document": a_document,
    "evidence: a line out": a_line_out,
    "evidence: the order": the_order,
    "evidence: rewritten": rewritten,
    "evidence: signed with another key": signed_anew,
    "evidence: a word for a body": a_word_for_a_body,
    "evidence: fewer entries": fewer_entries,
    "evidence: a note": a_note,
}


def a_byte(path: Path, dice: random.Random) -> Deed | None:
    """A byte of the zip file, where it changes what is in it."""
    raw, before = path.read_bytes(), unpack(path)
    at = dice.randrange(len(raw))
    path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << dice.randrange(8))]) + raw[at + 1 :])
    try:
        return None if unpack(path) == before else Deed(ANYWHERE)
    except Exception:  # noqa: BLE001 - it is broken, which is to be found
        return Deed(ANYWHERE)


def a_file(path: Path, dice: random.Random) -> Deed | None:
    """Any file in it, without the sums being made to fit."""
    files = unpack(path)
    name = dice.choice([name for name, raw in files.items() if raw and name != "SHA256SUMS"])
    spoilt = bytearray(files[name])
    spoilt[dice.randrange(len(spoilt))] ^= 1 << dice.randrange(8)
    files[name] = bytes(spoilt)
    pack(path, files, sums=False)
    return Deed(ANYWHERE)


def a_proof(path: Path, dice: random.Random) -> Deed | None:
    """A character of a proof, in the entry or in the path."""
    head, _, signed = path.read_text("utf-8").partition("\n\n")
    first, extra, index, *hashes = head.split("\n")
    told = json.loads(base64.b64decode(extra[6:]))
    what = dice.choice(["facts", "at", "body", "before", "digest", "index", "hash", "root", "signature"])
    if what in {"facts", "at"}:
        told[what] = told[what].replace("1", "2") + " "
    elif what == "body" and told["body"]:
        told["body"] += " "
    elif what in {"before", "digest"}:
        told[what] = "ee" * 32
    elif what == "index":
        index = f"index {int(index[6:]) + 1}"
    elif what == "hash" and hashes:
        hashes[dice.randrange(len(hashes))] = base64.b64encode(dice.randbytes(32)).decode()
    elif what == "root":
        parts = signed.split("\n")
        parts[2] = base64.b64encode(dice.randbytes(32)).decode()
        signed = "\n".join(parts)
    elif what == "signature":
        mark, name, raw = signed.rstrip("\n").split("\n")[-1].split(" ")
        changed = base64.b64decode(raw)[:4] + dice.randbytes(64)
        signed = signed.rpartition(mark)[0] + f"{mark} {name} {base64.b64encode(changed).decode()}\n"
    else:
        return None
    extra = "extra " + base64.b64encode(log.as_json(told).encode()).decode()
    path.write_text("\n".join([first, extra, index, *hashes]) + "\n\n" + signed, "utf-8")
    return Deed(ANYWHERE, key=True)


def growth(path: Path, earlier: Path, dice: random.Random) -> Deed | None:
    """A hash of a proof of growth, its later root, or its signature."""
    head, _, signed = path.read_text("utf-8").partition("\n\n")
    old, *hashes = head.split("\n")
    what = dice.choice(["hash", "less", "root", "signature", "old"])
    if what == "hash" and hashes:
        hashes[dice.randrange(len(hashes))] = base64.b64encode(dice.randbytes(32)).decode()
    elif what == "less" and hashes:
        del hashes[dice.randrange(len(hashes))]
    elif what == "root":
        parts = signed.split("\n")
        parts[2] = base64.b64encode(dice.randbytes(32)).decode()
        signed = "\n".join(parts)
    elif what == "signature":
        mark, name, raw = signed.rstrip("\n").split("\n")[-1].split(" ")
        changed = base64.b64decode(raw)[:4] + dice.randbytes(64)
        signed = signed.rpartition(mark)[0] + f"{mark} {name} {base64.b64encode(changed).decode()}\n"
    elif what == "old":
        old = f"old {int(old[4:]) + 1}"
    else:
        return None
    path.write_text("\n".join([old, *hashes]) + "\n\n" + signed, "utf-8")
    return Deed(ANYWHERE, (earlier,), key=True)


ON_FILES: dict[str, Callable[[Path, random.Random], Deed | None]] = {
    "evidence: a byte of the file": a_byte,
    "evidence: a file in it": a_file,
}
