"""What malformed, oversized and ambiguous messages cost: rows 15 to 21 of docs/explanation/security.md.

The details are tested where the decoders are: tests/core/test_codec.py, tests/worker/test_inputs.py and
tests/fuzz.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core.test_codec_hostile import BOMBS, head
from faults.hostile import say
from federation.processor import least_cpu_s, on_this_machine_s
from fuzz import run
from fuzz.decoders import TARGETS

from fedd.api.errors import FeddError, InvalidMessage, ProtocolError
from fedd.core import codec
from fedd.core.certificates import federation_id
from fedd.core.identity import PrivateKey, open_sealed, seal
from fedd.core.revocation import REVOCATION_DOMAIN, open_list
from fedd.worker import inputs
from fedd.worker.inputs import read_input

ARRAY_TAGS = {40, 64, 69, 70, 71, 72, 77, 78, 79, 84, 85, 86}
KEY = PrivateKey.from_seed(b"k" * 32)


MOST_S = 0.05


def cost(data: bytes) -> tuple[float, int]:
    """(CPU seconds of this thread at best, peak bytes) of decoding `data`, whatever comes of it."""

    def decode() -> None:
        with contextlib.suppress(InvalidMessage):
            codec.decode(data, max_bytes=max(len(data), codec.MAX_MESSAGE_BYTES))

    seconds = least_cpu_s(decode, MOST_S)
    tracemalloc.start()
    try:
        decode()
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def handle(content: bytes, format: str) -> dict[str, Any]:
    source = tempfile.TemporaryFile()  # noqa: SIM115 - read_input closes a duplicate
    source.write(content)
    source.seek(0)
    return {"kind": "file", "fd": os.dup(source.fileno()), "format": format, "path": "/t", "name": "t"}


def test_row_15_bombs() -> None:
    costs = {name: cost(bomb) for name, bomb in BOMBS.items()}
    slowest = max(costs, key=lambda name: costs[name][0])
    largest = max(costs, key=lambda name: costs[name][1] - len(BOMBS[name]))
    say(
        15,
        f"{len(BOMBS)} bombs: {costs[slowest][0] * 1e3:.0f} ms at most ({slowest}), "
        f"{costs[largest][1] / 2**20:.1f} MiB at most ({largest})",
    )
    assert all(peak <= 6 * 2**20 + len(BOMBS[name]) for name, (_, peak) in costs.items())
    if sys.gettrace() is None:  # a coverage tracer triples the time
        assert all(seconds <= on_this_machine_s(MOST_S) for seconds, _ in costs.values())


def test_row_16_tags() -> None:
    refused = 0
    for tag in range(70_001):
        with contextlib.suppress(InvalidMessage):
            codec.decode(head(6, tag) + b"\x00")
            continue
        refused += 1
    say(16, f"tags 0 to 70,000: {refused} refused, of ours ({len(ARRAY_TAGS)}) for what is in them")
    assert refused == 70_001


def test_row_17_mutated_messages() -> None:
    numbers = [run.fuzz(name, count=500, seconds=None) for name in TARGETS]
    inputs_, accepted = (sum(int(each[key]) for each in numbers) for key in ("inputs", "accepted"))
    say(17, f"{inputs_} mutated inputs to {len(TARGETS)} decoders: {accepted} accepted, no other exception")
    assert inputs_ == 500 * len(TARGETS)


def test_row_18_another_spelling_of_a_signed_message() -> None:
    federation = federation_id(KEY.public_key)
    fields = {"federation": bytes.fromhex(federation), "epoch": 1, "chain": b"", "revoked": []}
    payload = codec.encode(fields)
    open_list(seal(KEY, REVOCATION_DOMAIN, payload), federation)
    twins = [
        payload.replace(b"\x65epoch\x01", b"\x65epoch\x18\x01"),  # a number in more bytes than needed
        payload.replace(b"\x65chain\x40", b"\x65chain\x58\x00"),
        codec.encode(dict(reversed(fields.items())), canonical=False),  # other order of keys
        b"\xbf" + payload[1:] + b"\xff",  # a map without length
        payload + b"\x00",
    ]
    sealed = seal(KEY, REVOCATION_DOMAIN, payload)
    refused = 0
    for twin in twins:
        assert twin != payload
        with pytest.raises(ProtocolError):
            open_list(seal(KEY, REVOCATION_DOMAIN, twin), federation)
        refused += 1
    for envelope in (sealed + b"\x00", b"\x9f" + sealed[1:] + b"\xff"):
        with pytest.raises(ProtocolError):
            open_sealed(envelope, REVOCATION_DOMAIN)
        refused += 1
    say(18, f"other spellings of a signed message: {refused} of {len(twins) + 2} refused")


def test_row_19_arrays_that_do_not_hold_what_they_say() -> None:
    def array(shape: list[bytes], tag: int, data: bytes) -> bytes:
        dimensions = head(4, len(shape)) + b"".join(shape)
        return head(6, 40) + b"\x82" + dimensions + head(6, tag) + head(2, len(data)) + data

    tried = {
        "too little": array([head(0, 2**40)], 86, bytes(8)),
        "too much": array([head(0, 1)], 86, bytes(16)),
        "negative": array([b"\x20"], 86, bytes(8)),
        "overflowing": array([head(0, 2**32), head(0, 2**32)], 86, b""),
        "halves": array([head(0, 1)], 86, bytes(7)),
        "dtype unknown": array([head(0, 1)], 80, bytes(8)),
        "a text as the shape": array([b"\x61a"], 86, bytes(8)),
        "many empty rows": array([head(0, 2**40), b"\x00"], 86, b""),
    }
    peaks = []
    for data in tried.values():
        with pytest.raises(InvalidMessage):
            codec.decode(data)
        peaks.append(cost(data)[1])
    say(19, f"{len(tried)} arrays that lie: all refused, {max(peaks) / 1024:.0f} KiB allocated at most")
    assert max(peaks) <= 64 * 1024


def test_row_20_what_expands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_INPUT_BYTES", 100_000)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(50_000_000))
    size = len(bomb.getvalue())

    def read() -> None:
        with pytest.raises(InvalidMessage, match="expands to 50000000 bytes"):
            read_input(handle(bomb.getvalue(), "npz"))

    took_s = least_cpu_s(read, 0.1)
    say(20, f"{size} bytes that expand to 50,000,000: refused after {took_s * 1e3:.0f} ms, nothing expanded")
    assert took_s <= 0.1


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self._path),)


def test_row_21_pickles(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickled = pickle.dumps(Canary(str(canary)))
    saved = io.BytesIO()
    np.save(saved, np.array([Canary(str(canary))], dtype=object), allow_pickle=True)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("x.npy", saved.getvalue())
    tried = 0
    for content in (pickled, saved.getvalue(), zipped.getvalue()):
        for format in ("npy", "npz", "json", "csv"):
            with contextlib.suppress(FeddError):
                read_input(handle(content, format))
            tried += 1
        with contextlib.suppress(InvalidMessage):
            codec.decode(content)
        tried += 1
    found = "touched" if canary.exists() else "absent"
    say(21, f"pickles and object arrays to {tried} readers: canary {found}")
    assert not canary.exists()
    pickle.loads(pickled)  # noqa: S301 - ours: it shows that the canary works
    assert canary.exists()
