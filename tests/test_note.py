"""Signed notes: the example of the Go implementation that the form comes from, and what is no good."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import note, standalone
from journal.log import Unusable

# golang.org/x/mod/sumdb/note, its package example.
PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT + "\n\u2014 PeterNeumann"
    " x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
KEY = note.public_key(PUBLIC)


def test_the_example_is_signed_and_read_as_there() -> None:
    assert note.sign(TEXT, note.private_key(PRIVATE)) == NOTE
    assert note.read(NOTE, [KEY]) == TEXT
    assert note.text_of(NOTE) == TEXT
    assert standalone.trusted(NOTE, PUBLIC)


def test_a_key_that_was_made_signs() -> None:
    private, public = note.generate("omneo-journal/x")
    signed = note.sign("a\nb\n", note.private_key(private + "\n"))
    assert note.read(signed, [KEY, note.public_key(public)]) == "a\nb\n"
    assert standalone.trusted(signed, public)
    with pytest.raises(note.Bad, match="not signed with a key"):
        note.read(signed, [KEY])


@pytest.mark.parametrize(
    "spoilt",
    [
        NOTE.replace("answer", "question"),
        NOTE.replace("x08go/ZJ", "x08go/ZK"),
    ],
)
def test_a_false_signature_is_refused(spoilt: str) -> None:
    with pytest.raises(note.Bad, match="false"):
        note.read(spoilt, [KEY])
    assert not standalone.trusted(spoilt, PUBLIC)


@pytest.mark.parametrize(
    "spoilt", ["", "x", TEXT, NOTE[:-1], NOTE.replace("\u2014", "-"), NOTE.replace("x08go/", "*"), "\t" + NOTE]
)
def test_what_is_no_note_is_refused(spoilt: str) -> None:
    with pytest.raises(note.Bad, match="no signed note"):
        note.text_of(spoilt)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PRIVATE, "private key"),
        ("x", "no key"),
        (PUBLIC.replace("c74f20a3", "c74f20a4"), "mistyped"),
        (PUBLIC.replace("ARpc", "AXpc"), "mistyped"),
        (PUBLIC.replace("ARpc", "BRpc"), "no Ed25519"),
        (PUBLIC[:-4], "no Ed25519"),
        (PUBLIC.replace("c74f20a3", "xyz"), "no key"),
        (PUBLIC.replace("Peter", "Pet er"), "no key"),
    ],
)
def test_what_is_no_public_key_is_refused(text: str, words: str) -> None:
    with pytest.raises(note.Bad, match=words):
        note.public_key(text)


def test_what_is_no_private_key_is_refused() -> None:
    with pytest.raises(note.Bad, match="no private key"):
        note.private_key(PUBLIC)


def test_a_key_does_not_show_itself() -> None:
    assert "raw" not in repr(note.private_key(PRIVATE))


@given(st.binary(max_size=200), st.binary(min_size=32, max_size=32))
def test_plain_python_and_the_library_agree_on_signatures(text: bytes, seed: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = private.public_key().public_bytes_raw(), private.sign(text)
    assert standalone.signed(public, text, signature)
    assert not standalone.signed(public, text + b"x", signature)
    assert not standalone.signed(public, text, signature[:32] + bytes(32))


def test_files_are_never_overwritten_and_never_large(tmp_path: Path) -> None:
    path = tmp_path / "key"
    note.to_file(path, "x", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Unusable, match="already"):
        note.to_file(path, "y")
    assert note.from_file(path) == "x"
    path.write_bytes(b"\xff")
    with pytest.raises(Unusable, match="no text"):
        note.from_file(path)
    path.write_bytes(b"x" * 70_000)
    with pytest.raises(Unusable, match="too large"):
        note.from_file(path)
    with pytest.raises(Unusable):
        note.from_file(tmp_path / "none")
