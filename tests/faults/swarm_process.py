"""A Swarm that listens on loopback, in a process of its own, so that its memory can be read.

`python swarm_process.py '{"members": false, "handshakes_per_s": 1000}'`: limits as JSON. Prints its
address, then a line of counts for each line on standard input.
"""

from __future__ import annotations

import json
import logging
import os
import sys

import trio

from fedd.core.identity import PrivateKey
from fedd.net.identify import serve_identify
from fedd.net.ping import serve_ping
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm, SwarmLimits


async def _stall(stream: Stream) -> None:
    """Never read."""
    await trio.sleep_forever()


async def _swallow(stream: Stream) -> None:
    while await stream.receive_some():
        pass


async def main(options: dict[str, object]) -> None:
    members = bool(options.pop("members", False))
    swarm = Swarm(PrivateKey.from_seed(os.urandom(32)), SwarmLimits(**options))
    swarm.member_check = lambda peer_id: members
    counts = {"up": 0, "errors": 0}

    class Count(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                counts["errors"] += 1
                sys.stderr.write(self.format(record) + "\n")

    logging.getLogger("fedd").addHandler(Count())
    logging.getLogger("fedd").setLevel(logging.INFO)
    swarm.subscribe(lambda kind, link, why: counts.update(up=counts["up"] + (kind == "up")))
    swarm.handle("/stall/1", _stall, "anyone")
    swarm.handle("/swallow/1", _swallow, "anyone")
    serve_ping(swarm)
    serve_identify(swarm)
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        addresses = await swarm.listen("/ip4/127.0.0.1/tcp/0")
        print(json.dumps({"address": addresses[0]}), flush=True)
        stdin = trio.lowlevel.FdStream(os.dup(0))
        async for chunk in stdin:
            for _ in range(chunk.count(b"\n")):
                report = {
                    **counts,
                    "links": len(swarm.connections),
                    "streams": sum(len(link.streams) for link in swarm.connections.values()),
                    "pending": swarm.doors.pending,
                    "refused": swarm.doors.refused,
                }
                print(json.dumps(report), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, json.loads(sys.argv[1]))
