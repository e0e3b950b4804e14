"""One member as a process of its own, steered by JSON lines on standard input; for tests/bench/broadcast.py.

`{"init": uses}` begins a federation and answers with a token, `{"join": token}` enters it,
`{"members": null}` tells how many are alive, `{"publish": [count, bytes, gap_s]}` broadcasts,
`{"times": null}` tells the seconds from publishing to delivery of every broadcast that has come, in the order
in which they came, with their seqs, and how many were gaps. Everything is answered by one line.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import time
from pathlib import Path

import trio

sys.path[:0] = [str(Path(__file__).parent.parent)]

from net.federations import Node

from fedd.core.broadcast_types import Gap
from fedd.net.broadcast import Delivery


class Listener:
    """What has come, and how long it took: the clock of one machine is the same for all its processes."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, float]] = []
        self.gaps = 0

    def __call__(self, item: Delivery | Gap) -> None:
        if isinstance(item, Gap):
            self.gaps += item.last - item.first + 1
        else:
            (sent,) = struct.unpack_from("d", item.payload)
            self.heard.append((item.seq, time.monotonic() - sent))


async def publish(node: Node, count: int, size: int, gap_s: float) -> float:
    """Publish as fast as this node may, and not faster than one in `gap_s`; how long it took."""
    start = time.monotonic()
    for _ in range(count):
        wait_s = node.broadcaster.wait_s(size)
        if wait_s:
            await trio.sleep(wait_s)
        node.broadcaster.publish("bench", struct.pack("d", time.monotonic()) + bytes(size - 8))
        await trio.sleep(gap_s)
    return time.monotonic() - start


async def answer(node: Node, listener: Listener, command: dict[str, object]) -> object:
    (verb, argument) = next(iter(command.items()))
    match verb:
        case "init":
            node.admission.init("bench")
            return node.admission.invite(uses=int(str(argument))).token
        case "join":
            await node.admission.join(str(argument))
            return True
        case "members":
            return sum(view.state == "alive" for view in node.presence.members())
        case "publish":
            assert isinstance(argument, list)
            return await publish(node, *argument)
        case "times":
            heard, listener.heard = listener.heard, []
            used = resource.getrusage(resource.RUSAGE_SELF)
            return {"heard": heard, "gaps": listener.gaps, "cpu_s": used.ru_utime + used.ru_stime}
    raise ValueError(verb)


async def main() -> None:
    node = Node(sys.argv[1], None, int(sys.argv[2]))
    listener = Listener()
    async with trio.open_nursery() as nursery:
        await node.start(nursery)
        node.broadcaster.subscribe("bench", listener)
        print(json.dumps("ready"), flush=True)
        buffer = b""
        async for chunk in trio.lowlevel.FdStream(os.dup(0)):
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                print(json.dumps(await answer(node, listener, json.loads(line))), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
