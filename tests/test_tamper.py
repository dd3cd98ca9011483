"""A slice of the tampering campaign; `make tamper` is the whole of it."""

from pathlib import Path

import pytest

from tests.tamper.__main__ import campaign


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_slice_of_the_campaign(tmp_path: Path, seed: int) -> None:
    tally = campaign(seed, 66, 8, tmp_path, lambda _: None)
    assert sum(tally.found.values()) == 66
    assert (tally.missed, tally.disagree, tally.alarms) == ([], [], [])
