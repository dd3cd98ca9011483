"""
A bad line, in user space: two network namespaces, and packets carried between them as they are told to be.

    python tun.py NS_A NS_B SEED     reads lines of JSON from stdin: {"loss": 30, "delay": 300, …}

Loss, duplicates and flipped bits in per cent of packets; delay and jitter (which reorders) in milliseconds. Of kernels
without netem this needs nothing but /dev/net/tun. It ends with its stdin.
"""

import ctypes
import fcntl
import heapq
import json
import os
import select
import struct
import subprocess
import sys
import time
from random import Random

ENDS = ("10.78.0.1", "10.78.0.2")
CLEAN = {"loss": 0.0, "delay": 0.0, "jitter": 0.0, "twice": 0.0, "flip": 0.0}
NEW_NET = 0x40000000  # CLONE_NEWNET
SET_IFF, TUN_WITHOUT_INFO = 0x400454CA, 0x0001 | 0x1000


def enter(namespace: str) -> None:
    """Into a network namespace, this thread alone."""
    handle = os.open(namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, NEW_NET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(handle)


def end(namespace: str, address: str, peer: str) -> int:
    """One end of the line, in that namespace."""
    enter(f"/run/netns/{namespace}")
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, SET_IFF, struct.pack("16sH22x", b"line0", TUN_WITHOUT_INFO))
    for words in (f"ip addr add {address} peer {peer} dev line0", "ip link set line0 up mtu 1500"):
        subprocess.run(words.split(), check=True)
    return handle


def carry(ends: tuple[int, int], dice: Random) -> None:
    how = dict(CLEAN)
    under_way: list[tuple[float, int, int, bytes]] = []
    count = 0
    while True:
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, to, packet = heapq.heappop(under_way)
            try:
                os.write(to, packet)
            except OSError:
                continue
        wait = max(0.0, under_way[0][0] - now) if under_way else None
        readable, _, _ = select.select([*ends, 0], [], [], wait)
        if 0 in readable:
            told = sys.stdin.readline()
            if not told:
                return
            how = CLEAN | json.loads(told)
        for handle in set(readable) & set(ends):
            try:
                packet = os.read(handle, 65536)
            except BlockingIOError:
                continue
            if dice.random() * 100 < how["loss"]:
                continue
            for _ in range(2 if dice.random() * 100 < how["twice"] else 1):
                if dice.random() * 100 < how["flip"]:
                    hurt = bytearray(packet)
                    hurt[dice.randrange(len(hurt))] ^= 1 << dice.randrange(8)
                    packet = bytes(hurt)
                count += 1
                late = max(0.0, how["delay"] + dice.uniform(-1, 1) * how["jitter"]) / 1000
                to = ends[1] if handle == ends[0] else ends[0]
                heapq.heappush(under_way, (now + late, count, to, packet))


def main() -> None:
    a, b, seed = sys.argv[1:4]
    both = end(a, *ENDS), end(b, *reversed(ENDS))
    print("up", flush=True)
    carry(both, Random(seed))


if __name__ == "__main__":
    main()
