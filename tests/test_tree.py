"""The Merkle tree: the vectors of RFC 6962's reference implementation, and what has to hold for any leaves."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import standalone, tree
from journal.tree import Range

# The inputs and roots of Certificate Transparency's reference test (merkletree/merkle_tree_test).
INPUTS = [
    bytes.fromhex(each)
    for each in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATH_OF_THE_FIRST = [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]
LEAVES = [tree.leaf(each) for each in INPUTS]

sizes = st.integers(1, 300)
data = [sha256(b"%d" % number).digest() for number in range(3000)]
hashes = [tree.leaf(each) for each in data]


def grown(size: int) -> Range:
    whole = Range()
    whole.extend(data[:size])
    return whole


def test_no_leaves_have_the_root_of_nothing() -> None:
    assert Range().root() == tree.EMPTY == sha256(b"").digest() == tree.over([])(0, 0)


@pytest.mark.parametrize("size", range(1, 9))
def test_the_roots_of_the_reference(size: int) -> None:
    whole = Range()
    whole.extend(INPUTS[:size])
    assert whole.root().hex() == tree.over(LEAVES)(0, size).hex() == ROOTS[size - 1]


def test_a_path_of_the_reference() -> None:
    path = tree.inclusion(0, 8, tree.over(LEAVES))
    assert [each.hex() for each in path] == PATH_OF_THE_FIRST
    assert (tree.root_from(LEAVES[0], 0, 8, path) or b"").hex() == ROOTS[7]


@given(st.lists(st.integers(0, 700), max_size=8))
def test_it_makes_no_difference_in_which_pieces_it_grows(pieces: list[int]) -> None:
    whole, at = Range(), 0
    for piece in pieces:
        whole.extend(data[at : at + piece])
        at = min(at + piece, len(data))
    one_by_one = Range()
    for each in hashes[:at]:
        one_by_one.add(each)
    assert (whole.size, whole.hashes) == (at, one_by_one.hashes)
    assert whole.root() == tree.over(hashes)(0, at)


@given(sizes, sizes)
def test_it_can_be_taken_up_where_it_was_left(first: int, second: int) -> None:
    left = grown(first)
    taken_up = Range(left.size, left.hashes)
    taken_up.extend(data[first : first + second])
    assert taken_up.root() == grown(first + second).root()


@given(sizes, sizes)
def test_whole_subtrees_may_stand_for_their_leaves(first: int, second: int) -> None:
    some = grown(first)
    for low, high in tree.stretches(first, first + second, 2**62):
        some.add(tree.over(hashes)(low, high), high - low)
    assert some.root() == grown(first + second).root()


@given(st.data(), sizes)
def test_every_leaf_can_be_proven_and_no_other_in_its_place(drawn: st.DataObject, size: int) -> None:
    index = drawn.draw(st.integers(0, size - 1))
    path, root = tree.inclusion(index, size, tree.over(hashes)), grown(size).root()
    assert tree.root_from(hashes[index], index, size, path) == root
    assert standalone.root_from(hashes[index], index, size, path) == root
    assert tree.root_from(hashes[2999], index, size, path) != root
    assert tree.root_from(hashes[index], index, size, [*path, root]) != root
    assert tree.root_from(hashes[index], index, size, path[:-1]) != root or size == 1
    other = drawn.draw(st.integers(-2, size + 2))
    assert other == index or tree.root_from(hashes[index], other, size, path) != root


@given(st.data(), sizes)
def test_a_tree_begins_with_each_of_its_earlier_ones(drawn: st.DataObject, size: int) -> None:
    old = drawn.draw(st.integers(1, size))
    before, root = grown(old).root(), grown(size).root()
    path = tree.consistency(old, size, tree.over(hashes))
    assert tree.consistent(old, size, before, root, path)
    if old < size:
        assert standalone.consistent(old, size, before, root, path)
        assert not standalone.consistent(old, size, before, before, path)
        assert not standalone.consistent(old, size, before, root, path[:-1])
        assert not tree.consistent(old, size, root, root, path)
        assert not tree.consistent(old, size, before, before, path)
        assert not tree.consistent(old, size, before, root, [*path, root])
        assert not tree.consistent(old, size, before, root, path[:-1])


def test_what_is_no_proof_proves_nothing() -> None:
    assert not tree.consistent(0, 5, tree.EMPTY, grown(5).root(), [])
    assert not tree.consistent(5, 4, grown(5).root(), grown(4).root(), [])
    assert not tree.consistent(3, 5, grown(3).root(), grown(5).root(), [])
    assert tree.consistency(0, 5, tree.over(hashes)) == []
    assert tree.root_from(hashes[0], 5, 5, []) is None


@pytest.mark.parametrize(("size", "parts"), [(-1, []), (3, [b"x" * 32]), (1, [b"short"]), (0, [b"x" * 32])])
def test_a_range_of_another_form_is_refused(size: int, parts: list[bytes]) -> None:
    with pytest.raises(ValueError):
        Range(size, parts)
