"""Feed random yamux frames to sessions and say what came of it, as JSON.

`python random_frames.py COUNT`: headers are random in every field, but mostly of a kind that gets past the
first check, and payloads are there as far as the header's length is small.
"""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path

from fedd.api.errors import ProtocolError
from fedd.core.yamux import Session

_HEADER = struct.Struct(">BBHII")


def rss_kib() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4


def random_frame(rng: random.Random) -> bytes:
    """One frame; a third of the streams and lengths are plausible."""
    version = 0 if rng.random() < 0.98 else rng.randrange(256)
    kind = rng.choice((0, 0, 0, 1, 1, 2, 3, rng.randrange(256) if rng.random() < 0.05 else 0))
    flags = rng.choice((0, 1, 1, 2, 4, 8, rng.getrandbits(16)))
    stream_id = rng.choice((0, 1, 2, 3, 5, 2 * rng.randrange(300) + 1, rng.getrandbits(32)))
    length = rng.choice(
        (
            0,
            1,
            rng.randrange(64),
            rng.randrange(64),
            rng.randrange(300_000) if rng.random() < 0.1 else 8,
            rng.getrandbits(32),
        )
    )
    if length > 4096 and rng.random() < 0.9999:  # else each would swallow thousands of others
        length &= 255
    payload = length if kind == 0 and rng.random() < 0.9 else rng.choice((0, 64))
    return _HEADER.pack(version, kind, flags, stream_id, length) + bytes(min(payload, 300))


def main(count: int) -> dict[str, int]:
    rng = random.Random(1)
    session = Session(rng.random() < 0.5)
    refused = other = 0
    first = 0
    for number in range(count):
        try:
            events = session.receive_data(random_frame(rng))
            for event in events:
                if event.stream is not None and rng.random() < 0.3:
                    session.read(event.stream, None, float(number))
            session.data_to_send()
        except Exception as error:
            other += 1
            sys.stderr.write(f"{error!r}\n")
            session = Session(rng.random() < 0.5)
        failed = session.failure is not None
        if failed or session._remaining > 4096:  # else what follows is skipped as one large payload
            refused += failed and isinstance(session.failure, ProtocolError)
            other += failed and not isinstance(session.failure, ProtocolError)
            session.close()
            session = Session(rng.random() < 0.5)
        if number == count // 10:
            first = rss_kib()
    return {"frames": count, "refused": refused, "other": other, "rss_kib": rss_kib() - first}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
