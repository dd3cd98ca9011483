"""The model of a disk that the power-cut means stand on: what is sure stays, what isn't may go, and nothing else."""

import random
from pathlib import Path

import pytest
from faults.volatile import Disk, Model, Op, State

MODELS: tuple[Model, ...] = ("ordered", "strict")
BOTH = pytest.mark.parametrize("model", MODELS)


def disk(model: Model, *ops: Op) -> Disk:
    """An empty directory, and what was done in it."""
    made = Disk(model, names={"/d": -1}, sure_names={"/d": -1})
    for op in ops:
        made.take(op)
    return made


def cuts(made: Disk, count: int = 400) -> list[State]:
    dice = random.Random(7)
    return [made.cut(dice) for _ in range(count)]


def contents(made: Disk) -> set[tuple[tuple[str, bytes], ...]]:
    return {tuple(sorted(state.contents().items())) for state in cuts(made)}


WRITTEN = (Op("create", "/d/a"), Op("write", "/d/a", data=b"x" * 1024))
SYNCED = (*WRITTEN, Op("sync", "/d/a"), Op("sync", "/d"))


@BOTH
def test_what_was_synced_is_there_whole(model: Model) -> None:
    assert contents(disk(model, *SYNCED)) == {(("/d/a", b"x" * 1024),)}


@BOTH
def test_what_was_not_synced_is_there_or_not_or_in_part(model: Model) -> None:
    found = contents(disk(model, *WRITTEN))
    half = b"x" * 512
    assert {(), (("/d/a", b""),), (("/d/a", half),), (("/d/a", bytes(512) + half),), (("/d/a", half * 2),)} == found


def test_a_name_is_sure_with_any_sync_or_only_with_its_directorys() -> None:
    ops = (*WRITTEN, Op("sync", "/d/a"))
    assert () not in contents(disk("ordered", *ops))
    assert () in contents(disk("strict", *ops))


def test_names_survive_in_order_or_in_any() -> None:
    ops = (*SYNCED, Op("create", "/d/b"), Op("sync", "/d"), Op("unlink", "/d/a"), Op("unlink", "/d/b"))
    names = {model: {tuple(sorted(state.names)) for state in cuts(disk(model, *ops))} for model in MODELS}
    assert names["ordered"] == {("/d/a", "/d/b"), ("/d/b",), ()}
    assert names["strict"] == names["ordered"] | {("/d/a",)}


@BOTH
def test_a_rename_is_never_torn(model: Model) -> None:
    ops = (*SYNCED, Op("mkdir", "/d/e"), Op("sync", "/d"), Op("rename", "/d/a", "/d/b"), Op("rename", "/d/b", "/d/e/c"))
    names = {tuple(sorted(state.names)) for state in cuts(disk(model, *ops))}
    assert names == {("/d/a",), ("/d/b",), ("/d/e/c",)}
    assert {tuple(state.names) for state in cuts(disk(model, *ops, Op("sync", "/d/e")))} == {("/d/e/c",)}


@BOTH
def test_what_a_failed_sync_did_not_write_is_never_written(model: Model) -> None:
    ops = (*SYNCED, Op("write", "/d/a", data=b"y" * 512), Op("lose", "/d/a"), Op("sync", "/d/a"))
    assert contents(disk(model, *ops)) == {(("/d/a", b"x" * 1024),)}


def test_a_directory_that_is_lost_takes_along_what_was_in_it() -> None:
    ops = (Op("mkdir", "/d/e"), Op("create", "/d/e/a"), Op("sync", "/d/e/a"), Op("sync", "/d/e"))
    assert {tuple(state.names) for state in cuts(disk("strict", *ops))} == {(), ("/d/e/a",)}


def test_a_directory_is_read_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "a").write_bytes(b"here")
    (state,) = {state.key(): state for state in cuts(Disk.of(tmp_path, "strict"))}.values()
    assert state.contents() == {f"{tmp_path}/e/a": b"here"}
    assert state.directories == {str(tmp_path), f"{tmp_path}/e"}
