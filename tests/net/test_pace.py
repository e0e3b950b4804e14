"""The size of writes follows what the link takes."""

from __future__ import annotations

import pytest

from fedd.net.buffers import MAX_QUANTUM_BYTES, MIN_QUANTUM_BYTES
from fedd.net.memory import MemoryNetwork, MemoryWire, _Pipe
from fedd.net.pace import FAST_BYTES, QUANTUM_S, Pace
from fedd.net.transport import Address


class Kernel(MemoryWire):
    """A wire that remembers what it was told."""

    def __init__(self) -> None:
        network = MemoryNetwork()
        nowhere = Address("memory", "", 1)
        super().__init__(nowhere, nowhere, _Pipe(network), _Pipe(network))
        self.limits: list[int] = []

    def limit_unsent(self, size_bytes: int) -> None:
        self.limits.append(size_bytes)


def send(pace: Pace, bytes_per_s: float, seconds: float) -> None:
    """Full writes for so long, each taken as fast as the link is."""
    while seconds > 0:
        size = pace.quantum_bytes
        pace.took(size, size / bytes_per_s)
        seconds -= size / bytes_per_s


@pytest.mark.parametrize(
    ("bytes_per_s", "quantum_bytes"),
    [
        (125e3, MIN_QUANTUM_BYTES),  # 1 Mbit/s
        (1.25e6, MIN_QUANTUM_BYTES),
        (12.5e6, 12.5e6 * QUANTUM_S),
        (1e9, MAX_QUANTUM_BYTES),
    ],
)
def test_a_write_takes_the_link_for_a_few_milliseconds(bytes_per_s: float, quantum_bytes: float) -> None:
    pace = Pace(Kernel())
    send(pace, bytes_per_s, 1.0)
    assert pace.quantum_bytes == pytest.approx(quantum_bytes, rel=0.01)


def test_what_only_fills_the_queue_again_does_not_make_a_slow_link_fast() -> None:
    pace = Pace(Kernel())
    send(pace, 1.25e6, 1.0)
    for _ in range(100):  # one write waits for all that is queued, the next is taken at once
        pace.took(MIN_QUANTUM_BYTES, 2 * MIN_QUANTUM_BYTES / 1.25e6)
        pace.took(MIN_QUANTUM_BYTES, 0.0)
        assert pace.quantum_bytes == MIN_QUANTUM_BYTES


def test_a_reader_that_was_not_scheduled_for_a_moment_does_not_make_a_fast_link_slow() -> None:
    pace = Pace(Kernel())
    send(pace, 1e9, 0.1)
    pace.took(MAX_QUANTUM_BYTES, 0.008)
    assert pace.quantum_bytes >= FAST_BYTES
    send(pace, 1e9, 0.02)
    assert pace.quantum_bytes == MAX_QUANTUM_BYTES


def test_a_link_that_becomes_fast_is_found_out() -> None:
    pace = Pace(Kernel())
    send(pace, 1.25e6, 1.0)
    send(pace, 1e9, 0.05)
    assert pace.quantum_bytes == MAX_QUANTUM_BYTES


def test_small_writes_say_nothing() -> None:
    pace = Pace(Kernel())
    for _ in range(1000):
        pace.took(100, 0.0)
    assert pace.quantum_bytes == MIN_QUANTUM_BYTES


def test_the_kernel_holds_little_for_a_slow_link_and_more_for_a_fast_one() -> None:
    kernel = Kernel()
    pace = Pace(kernel)
    send(pace, 1e9, 0.1)
    assert kernel.limits == [FAST_BYTES]
    send(pace, 1.25e6, 1.0)
    assert kernel.limits == [FAST_BYTES, MIN_QUANTUM_BYTES]
