"""What systemd hears of a loop that goes on, of one that pauses, and of one that is stuck while its threads live."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from standin import Omneo, Store
from standin import sale as bought
from tills import Shop, sale, wait_until

from forwarder import patience, side_by_side
from forwarder.replay import Replay
from journal import ingest, log, notify
from journal.notify import Pulse
from journal.spool import Spool


class Systemd:
    """Its end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "30000000"}
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._door.bind(str(path))
        self._door.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        while True:
            try:
                self.heard += self._door.recv(4096).decode().split("\n")
            except BlockingIOError:
                return self.heard

    def beats(self) -> int:
        return self.listen().count("WATCHDOG=1")

    def close(self) -> None:
        self._door.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listening = Systemd(tmp_path / "notify")
    yield listening
    listening.close()


@pytest.fixture(autouse=True)
def each_turn_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "SAID_EVERY_S", 0.0)
    monkeypatch.setattr(notify, "REST_S", 0.05)


def taking(shop: Shop, systemd: Systemd, stop: threading.Event, wake: threading.Event, **how: Any) -> threading.Thread:
    """`ingest.run` in a thread of its own, since a connection belongs to the thread that opened it."""

    def work() -> None:
        book = log.open_book(shop.db, "journal", write=True)
        spool = Spool(shop.spool, 1024 * 1024, lambda *_: None, stop)
        pulse = Pulse(systemd.environment)
        ingest.run(spool, book, shop.delivery, stop, wake, say=lambda *_, **__: None, pulse=pulse, **how)
        book.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_outside_of_systemd_nothing_is_said_and_nothing_fails() -> None:
    for environment in (None, {}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/notify"}):
        pulse = Pulse(environment)
        pulse.ready(90)
        pulse.beat()
        pulse.stopping()


def test_an_abstract_socket_is_reached_too() -> None:
    name = f"omneo-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(f"\0{name}")
        door.settimeout(5)
        Pulse({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert door.recv(100) == b"READY=1"


def test_the_watchdog_gets_patience_only_if_a_request_may_take_longer(systemd: Systemd) -> None:
    Pulse(systemd.environment).ready(29)
    Pulse(systemd.environment).ready(90)
    assert systemd.listen() == ["READY=1", "READY=1", "WATCHDOG_USEC=90000000"]


def test_a_pause_is_told_as_often_as_the_unit_asks_for(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "REST_S", 10.0)
    stop = threading.Event()
    Pulse(systemd.environment | {"WATCHDOG_USEC": "400000"}).rest(stop, 0.5)
    assert systemd.beats() >= 4


def test_a_fast_loop_tells_once_a_second(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "SAID_EVERY_S", 60.0)
    pulse = Pulse(systemd.environment)
    for _ in range(1000):
        pulse.beat()
    assert systemd.beats() == 1


def test_ingest_is_ready_then_beats_with_each_pass_then_stops(shop: Shop, systemd: Systemd) -> None:
    stop, wake = threading.Event(), threading.Event()
    thread = taking(shop, systemd, stop, wake)
    shop.drop("a.json", sale())
    wait_until(lambda: systemd.beats() >= 3)
    stop.set()
    wake.set()
    thread.join()
    heard = systemd.listen()
    assert (heard[0], heard[-1], set(heard[1:-1])) == ("READY=1", "STOPPING=1", {"WATCHDOG=1"})


def test_a_burst_beats_with_each_batch_and_not_only_at_its_end(shop: Shop, systemd: Systemd) -> None:
    for number in range(1500):
        shop.drop(f"{number}.json", sale(f"S-{number}"))
    spool = Spool(shop.spool, 1024 * 1024, lambda *_: None)
    ingest.sweep(spool, shop.book, say=lambda *_, **__: None, pulse=Pulse(systemd.environment))
    assert systemd.beats() >= 2


def test_a_supervisor_that_does_not_listen_holds_up_no_turn_and_the_end_for_a_second(systemd: Systemd) -> None:
    pulse = Pulse(systemd.environment)
    started, worked = time.monotonic(), time.process_time()
    for _ in range(2000):  # more than any queue of datagrams holds
        pulse.beat()
    full = time.monotonic()
    assert full - started < 60 * notify.SEND_S
    pulse.stopping()
    assert time.monotonic() - full >= notify.SEND_S
    assert time.process_time() - worked < notify.SEND_S / 2  # it slept meanwhile
    assert "STOPPING=1" not in systemd.listen()
    pulse.stopping()
    assert systemd.listen()[-1] == "STOPPING=1"


def test_a_loop_that_is_stuck_falls_silent_while_the_threads_beside_it_live(shop: Shop, systemd: Systemd) -> None:
    stop, wake, stuck, free = (threading.Event() for _ in range(4))

    def keep() -> None:
        if systemd.beats() >= 2:
            stuck.set()
            free.wait()

    thread = taking(shop, systemd, stop, wake, chores=[keep])
    wait_until(lambda: wake.set() or stuck.is_set())
    before = systemd.beats()
    shop.drop("till-1/a.json", sale())  # file events still come in
    time.sleep(0.5)  # any number of passes, if there were any
    assert systemd.beats() == before
    free.set()
    wait_until(lambda: systemd.beats() > before)
    stop.set()
    wake.set()
    thread.join()


def deliver(run: Replay, systemd: Systemd, lanes: int, until: Callable[[], object]) -> None:
    """Run one of the two loops, told on to systemd, until something is so."""
    run = Replay(run.books, run.link, run.policy, run.say, pulse=Pulse(systemd.environment), lanes=lanes)
    stop, wake = threading.Event(), threading.Event()

    def end() -> None:
        try:
            wait_until(until)
        finally:
            stop.set()
            wake.set()

    ender = threading.Timer(0, end)
    ender.start()
    (side_by_side if lanes else patience).run_until(run, stop, wake)
    ender.join()
    assert systemd.listen()[-1] == "STOPPING=1"


@pytest.mark.parametrize("lanes", [0, 2])
def test_the_forwarder_beats_in_a_pause_however_long_omneo_asks_for_it(
    store: Store, omneo: Omneo, token: Path, systemd: Systemd, lanes: int
) -> None:
    store.take(bought("S-1"))
    omneo.fault("throttle", retry_after=3600)
    with store.forwarding(omneo.url, token=token) as run:
        deliver(run, systemd, lanes, lambda: systemd.beats() >= 4)
    assert omneo.sales() == []


@pytest.mark.parametrize("lanes", [0, 2])
def test_while_a_request_hangs_nothing_beats(
    store: Store, omneo: Omneo, token: Path, systemd: Systemd, lanes: int
) -> None:
    store.take(bought("S-1"))
    omneo.fault("hang", seconds=4)
    seen: list[int] = []

    def hangs() -> bool:
        if omneo.asked():
            seen.append(systemd.beats())
            time.sleep(0.1)  # ten looks, each at a moment when a thread of its own would have beaten
        return len(seen) == 10

    with store.forwarding(omneo.url, token=token, timeout=3) as run:
        deliver(run, systemd, lanes, hangs)
    assert len(set(seen[1:])) == 1
