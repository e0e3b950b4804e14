"""What a daemon gives back to the kernel, and what it does not take before it needs it."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from fedd.daemon import release_free_memory

BLOCK_BYTES = 64 * 1024  # below malloc's limit for blocks with a mapping of their own
BLOCKS = 400

ONLY_FOR_RUNS = (
    "fedd.core.epochs",
    "fedd.core.history",
    "fedd.core.mail",
    "fedd.core.manifest",
    "fedd.core.rounds",
    "fedd.host.run_node",
    "fedd.host.run_proposer",
    "fedd.host.run_result",
    "fedd.host.run_rooms",
    "fedd.host.run_wire",
)
ONLY_FOR_COMMANDS = ("fedd.core.pipe", "fedd.host.command_session", "fedd.host.worker_process")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this libc cannot give memory back")
def test_free_memory_below_a_block_in_use_is_given_back() -> None:
    blocks = [bytes([1]) * BLOCK_BYTES for _ in range(BLOCKS)]
    last = blocks.pop()
    blocks.clear()
    before = resident_bytes()
    release_free_memory()
    assert before - resident_bytes() > BLOCKS * BLOCK_BYTES / 2
    assert len(last) == BLOCK_BYTES


def test_a_libc_without_trimming_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    release_free_memory()


def test_what_runs_and_commands_need_is_loaded_with_the_first_of_them() -> None:
    program = "import sys, fedd.daemon; print(*(name for name in sys.argv if name in sys.modules))"
    names = [*ONLY_FOR_RUNS, *ONLY_FOR_COMMANDS]
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, timeout=60)
    assert done.stdout == "\n", done.stderr


def test_the_dataclasses_of_a_daemon_share_their_methods() -> None:
    # Those of fedd.api have the standard library's, for plugins are made of them.
    program = (
        "import sys, fedd.daemon; from fedd.core.dataclass import dataclass\n"
        "shared = dataclass(type('Any', (), {})).__repr__\n"
        "rooms = [module for name, module in sys.modules.items() if name.startswith('fedd.')]\n"
        "found = {each for room in rooms for each in vars(room).values() if isinstance(each, type)}\n"
        "found = {each for each in found if '__dataclass_fields__' in vars(each)}\n"
        "assert len(found) > 80, len(found)\n"
        "print(*sorted(each.__name__ for each in found if each.__repr__ is not shared\n"
        "              and not each.__module__.startswith('fedd.api.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "\n", done.stderr
