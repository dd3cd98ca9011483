"""The link from an entry to the one before it."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from journal import chain

texts = st.text(st.characters(codec="utf-8"), max_size=20)
rows = st.builds(
    chain.Row,
    st.integers(1, 2**63 - 1),
    texts,
    texts,
    st.none() | st.integers(1, 2**63 - 1),
    st.none() | texts,
    texts,
    st.none() | st.binary(min_size=32, max_size=32),
)


def test_a_row_is_said_in_netstrings() -> None:
    row = chain.Row(7, "2025-06-15T04:32:00.000Z", "sale", None, "Zoë", "{}", None)
    assert chain.encode(row) == b"1:7,24:2025-06-15T04:32:00.000Z,4:sale,-,4:Zo\xc3\xab,2:{},-,"


def test_a_digest_covers_the_one_before_and_the_row() -> None:
    row = chain.Row(1, "", "", None, None, "", None)
    assert chain.link(chain.ZERO, row) == sha256(bytes(32) + b"1:1,0:,0:,-,-,0:,-,").digest()


@given(rows, rows)
def test_two_different_rows_are_never_said_alike(one: chain.Row, other: chain.Row) -> None:
    assert (chain.encode(one) == chain.encode(other)) == (one == other)


@given(rows, texts, texts)
def test_text_can_not_move_from_one_column_to_the_next(row: chain.Row, left: str, right: str) -> None:
    here = row._replace(at=left + right, kind="")
    there = row._replace(at=left, kind=right)
    assert (chain.encode(here) == chain.encode(there)) == (right == "")


def test_nothing_and_the_empty_text_differ() -> None:
    row = chain.Row(1, "", "", None, None, "", None)
    assert chain.encode(row) != chain.encode(row._replace(external_id=""))


def test_a_body_hash_covers_salt_and_bytes() -> None:
    assert chain.body_hash(b"salt", b"body") == sha256(b"saltbody").digest()
