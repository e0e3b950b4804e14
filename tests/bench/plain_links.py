"""The bytes of a round of learning, sent plainly over our own links: what no algorithm can undercut.

plain_links.py FOLDER NUMBER NODES BYTES ROUNDS

Every node is a process that holds a link with every other. A round: it sends BYTES, in equal shares to all
others, and has received as many; then the next begins. There is no daemon, no worker and no message, only
streams; what is sent lies in memory and what comes is thrown away.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

PROTOCOL = "/bench/plain/1.0.0"
READ_BYTES = 1 << 20


def measure(nodes: int, size: int, rounds: int, deadline_s: float = 120.0) -> dict[str, float]:
    """{round_s, cpu_s, bytes}: medians over nodes and rounds; `cpu_s` is a node's processor time a round."""
    with tempfile.TemporaryDirectory(prefix="fedd-bench-") as folder:
        command = [sys.executable, __file__, folder]
        processes = [
            subprocess.Popen([*command, str(number), str(nodes), str(size), str(rounds)])
            for number in range(nodes)
        ]
        try:
            for process in processes:
                if process.wait(deadline_s):
                    raise RuntimeError(f"an end of the plain links ended with {process.returncode}")
        finally:
            for process in processes:
                process.kill()
                process.wait()
        told = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.result"))]
    steps = [later - earlier for each in told for earlier, later in itertools.pairwise(each["times"])]
    cpu_s = statistics.mean(each["cpu_s"] for each in told) / rounds
    return {"round_s": statistics.median(steps), "cpu_s": cpu_s, "bytes": size}


async def node(folder: Path, number: int, nodes: int, size: int, rounds: int) -> None:
    """One process: addresses and results go through files of `folder`."""
    from links_fedd import new_swarm

    from fedd.net.stream import Stream

    swarm = new_swarm()
    share = size // max(1, nodes - 1)
    data = memoryview(bytes(share))
    incoming, streams = trio.open_memory_channel[Stream](nodes)
    over = trio.Event()

    async def accept(stream: Stream) -> None:
        await incoming.send(stream)
        await over.wait()

    async def receive(stream: Stream) -> None:
        left = share
        while left:
            left -= len(await stream.receive_some(min(left, READ_BYTES)))

    swarm.handle(PROTOCOL, accept, access="anyone")
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        (address,) = await swarm.listen("/ip4/127.0.0.1/tcp/0")
        (folder / f"{number}.part").write_text(address)
        (folder / f"{number}.part").rename(folder / f"{number}.address")
        while len(list(folder.glob("*.address"))) < nodes:
            await trio.sleep(0.01)
        others = [(folder / f"{n}.address").read_text() for n in range(nodes) if n != number]
        for address in others[:number]:
            await swarm.dial([address])
        peers = [address.rpartition("/")[2] for address in others]
        while len(swarm.connections) < nodes - 1:
            await trio.sleep(0.01)
        out = [await swarm.open_stream(peer, PROTOCOL) for peer in peers]
        for stream in out:
            await stream.send_all(b"!")
        into = [await streams.receive() for _ in peers]
        for stream in into:
            await stream.receive_exactly(1)
        times, began = [time.monotonic()], time.process_time()
        for _ in range(rounds):
            async with trio.open_nursery() as exchange:
                for stream in out:
                    exchange.start_soon(stream.send_all, data)
                for stream in into:
                    exchange.start_soon(receive, stream)
            times.append(time.monotonic())
        result = {"times": times, "cpu_s": time.process_time() - began}
        (folder / f"{number}.part").write_text(json.dumps(result))
        (folder / f"{number}.part").rename(folder / f"{number}.result")
        while len(list(folder.glob("*.result"))) < nodes:
            await trio.sleep(0.01)
        over.set()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent)]
    trio.run(node, Path(sys.argv[1]), *map(int, sys.argv[2:]))
