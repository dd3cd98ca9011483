"""
The redemption machine on a disk that fills: SQLite itself refuses, at any moment, and what was recorded is not lost.

From some moment on, in the middle of a commit too, the delivery book's connection refuses to write, as on a disk that
became full or read-only. The forwarder keeps in hand what it could not write down, and goes on once there is room.

DISK_EXAMPLES=20000 makes a long run of it.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import shop_machine
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from shop_machine import Machine, one_world, profile
from shop_model import ModelShop
from shop_world import World

from forwarder.books import Books
from journal import log
from journal.log import NotNow

EXAMPLES = int(os.environ.get("DISK_EXAMPLES", "25"))


class FullShop(ModelShop):
    """A shop whose delivery book may refuse to be written, from some moment on."""

    refused = 0
    left: int | None = None

    def __init__(self, world: World, *given: Any, **named: Any) -> None:
        def moment() -> None:  # before and after each request, and inside each commit
            World.moment(world)
            self.passes()

        world.moment = moment  # type: ignore[method-assign]
        super().__init__(world, *given, **named)

    def room(self, moments: int | None) -> None:
        """For so many moments more, or for good."""
        self.left = moments
        if self.run is not None:
            self.run.books.delivery.execute("PRAGMA query_only = OFF")

    def passes(self) -> None:
        if self.left is None or self.run is None:
            return
        self.left -= 1
        if self.left < 0:
            self.run.books.delivery.execute("PRAGMA query_only = ON")

    def not_now(self) -> None:
        """The program waits a little, and tries again."""
        type(self).refused += 1
        self.world.passes(1.0)

    def forward(self, times: int) -> bool:
        try:
            return super().forward(times)
        except NotNow:
            self.not_now()
            return True

    def pause(self) -> None:
        try:
            super().pause()
        except NotNow:
            self.not_now()

    def restart(self) -> None:
        """What could not be written down is gone with the program, as after a power cut."""
        try:
            super().restart()
        except NotNow:
            self.not_now()
            self.power_cut()


class DiskMachine(Machine):
    """All that can befall a shop, and a disk that fills."""

    shop: FullShop

    @rule(moments=st.integers(0, 12))
    def the_disk_fills(self, moments: int) -> None:
        self.shop.room(moments)

    @rule(moments=st.integers(0, 20), times=st.integers(1, 12), dice=st.integers(0, 7))
    def forward_on_a_disk_that_fills(self, moments: int, times: int, dice: int) -> None:
        self.shop.room(moments)
        self.forward(times, dice)
        self.shop.room(None)

    @rule()
    def the_disk_has_room(self) -> None:
        self.shop.room(None)

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            self.shop.room(None)
        super().teardown()


@pytest.fixture(scope="module", autouse=True)
def _one_world() -> Iterator[None]:
    shop_machine.ModelShop, before = FullShop, shop_machine.ModelShop
    with one_world():
        yield
    shop_machine.ModelShop = before


TestOnAFullDisk = DiskMachine.TestCase
TestOnAFullDisk.settings = profile(EXAMPLES, print_blob=True)


def test_the_disk_really_refuses() -> None:
    """The control: a machine in which nothing is ever refused would prove nothing."""
    before = FullShop.refused
    run_state_machine_as_test(DiskMachine, settings=profile(40, phases=[Phase.generate], database=None))
    assert FullShop.refused > before


def test_the_machine_finds_what_is_forgotten_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(self: Any) -> None:
        pending, self._pending = self._pending, []
        log.append(self.delivery, pending, now=self.now)

    monkeypatch.setattr(Books, "flush", forgets)
    how = profile(3000, phases=[Phase.generate], database=None, derandomize=True)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(DiskMachine, settings=how)
