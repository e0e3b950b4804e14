"""The bytes of a round of learning, sent plainly over our own links: what no algorithm can undercut.

plain_links.py NUMBER NODES BYTES ROUNDS

Every node is a process that holds a link with every other. A round: it sends BYTES, in equal shares to all
others, and has received as many; then the next begins. There is no daemon, no worker and no message, only
streams; what is sent lies in memory and what comes is thrown away. A node says its address and its result on
stdout, and reads from stdin the addresses of all and when to end.
"""

from __future__ import annotations

import itertools
import json
import secrets
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import Any

import trio

from fedd.core.identity import PrivateKey
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm, SwarmLimits

PROTOCOL = "/bench/plain/1.0.0"
READ_BYTES = 1 << 20


def measure(nodes: int, size: int, rounds: int) -> dict[str, float]:
    """{round_s, cpu_s, bytes}: medians over nodes and rounds; `cpu_s` is a node's processor time a round."""
    ends = [
        subprocess.Popen(
            [sys.executable, __file__, str(number), str(nodes), str(size), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(nodes)
    ]
    try:
        addresses = [hear(end) for end in ends]
        for end in ends:
            say(end, addresses)
        told = [hear(end) for end in ends]
    finally:
        for end in ends:
            end.kill()
            end.wait()
    steps = [later - earlier for each in told for earlier, later in itertools.pairwise(each["times"])]
    cpu_s = statistics.mean(each["cpu_s"] for each in told) / rounds
    return {"round_s": statistics.median(steps), "cpu_s": cpu_s, "bytes": size}


def hear(end: subprocess.Popen[str]) -> Any:
    """The next document that a node prints. Raises RuntimeError when it ends instead."""
    assert end.stdout is not None
    line = end.stdout.readline()
    if not line:
        raise RuntimeError(f"an end of the plain links ended with {end.wait()}")
    return json.loads(line)


def say(end: subprocess.Popen[str], document: object) -> None:
    """Hand a document to a node."""
    assert end.stdin is not None
    end.stdin.write(json.dumps(document) + "\n")
    end.stdin.flush()


async def node(number: int, nodes: int, size: int, rounds: int) -> None:
    """One process: it opens a stream, for both directions, to every node of a lower number."""
    swarm = Swarm(PrivateKey.from_seed(secrets.token_bytes(32)), limits=SwarmLimits(handshakes_per_s=1e6))
    swarm.member_check = lambda peer_id: True  # strangers would not keep idle connections for long
    incoming, accepted = trio.open_memory_channel[Stream](nodes)

    async def accept(stream: Stream) -> None:
        await stream.receive_exactly(1)
        await incoming.send(stream)
        await trio.sleep_forever()

    swarm.handle(PROTOCOL, accept, access="anyone")
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        print(json.dumps((await swarm.listen("/ip4/127.0.0.1/tcp/0"))[0]), flush=True)
        addresses = json.loads(await trio.to_thread.run_sync(sys.stdin.readline))
        streams = []
        for address in addresses[:number]:
            await swarm.dial([address])
            streams.append(await swarm.open_stream(address.rpartition("/")[2], PROTOCOL))
            await streams[-1].send_all(b"!")
        streams += [await accepted.receive() for _ in addresses[number + 1 :]]
        print(json.dumps(await exchange(streams, size // max(1, nodes - 1), rounds)), flush=True)
        await trio.sleep_forever()  # the others may not have received all


async def exchange(streams: list[Stream], share: int, rounds: int) -> dict[str, Any]:
    """Send `share` bytes to all and receive as many from all, so many times: when each time was over."""
    data = memoryview(bytes(share))

    async def receive(stream: Stream) -> None:
        left = share
        while left:
            left -= len(await stream.receive_some(min(left, READ_BYTES)))

    times, began = [time.monotonic()], time.process_time()
    for _ in range(rounds):
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(partial(stream.send_all, data))
                nursery.start_soon(receive, stream)
        times.append(time.monotonic())
    return {"times": times, "cpu_s": time.process_time() - began}


if __name__ == "__main__":
    trio.run(node, *map(int, sys.argv[1:]))
