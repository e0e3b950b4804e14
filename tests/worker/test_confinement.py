"""What a process that runs plugins has given up, seen from within such a process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from fedd.worker.confinement import OOM_SCORE_ADJ

LOOK = """
import json, resource
def look(*_):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {
        "no_new_privs": int(status["NoNewPrivs"]),
        "oom": int(open("/proc/self/oom_score_adj").read()),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "data": resource.getrlimit(resource.RLIMIT_DATA),
    }
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel about itself in /proc")


def confined(code: str, before: str = "") -> Any:
    program = f"{LOOK}\n{before}\nfrom fedd.worker.confinement import confine\nconfine()\n{code}"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_more_rights_no_cores_and_first_to_go() -> None:
    seen = confined("print(json.dumps(look()))")
    assert seen["no_new_privs"] == 1
    assert seen["oom"] >= OOM_SCORE_ADJ  # the tests may run with more
    assert seen["core"] == [0, 0]
    assert 0 < seen["data"][0] == seen["data"][1]


def test_what_is_started_has_given_it_up_too() -> None:
    code = """
import os
if child := os.fork():
    os.waitpid(child, 0)
else:
    print(json.dumps(look()), flush=True)
    os._exit(0)
"""
    seen = confined(code)
    assert seen["no_new_privs"] == 1
    assert seen["oom"] >= OOM_SCORE_ADJ


def test_more_memory_than_the_device_has_is_refused_at_once() -> None:
    """In pieces, of which the kernel would have granted each, and none of which is touched."""
    code = """
import mmap, os
total, held = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), []
piece = total // 8
try:
    for _ in range(12):
        held.append(mmap.mmap(-1, piece, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
except (MemoryError, OSError):
    pass
print(json.dumps(len(held)))
"""
    assert confined(code) <= 8


def test_a_limit_that_is_lower_already_stays() -> None:
    lower = 1 << 30
    before = f"resource.setrlimit(resource.RLIMIT_DATA, ({lower}, {lower}))"
    assert confined("print(json.dumps(look()))", before)["data"] == [lower, lower]


def test_the_programs_of_the_worker_begin_with_it() -> None:
    code = (
        f"{LOOK}\nimport sys, fedd.worker.__main__ as main\nimport fedd.worker.inspect as inspect\n"
        "inspect.inspect_plugins = look\nsys.exit(main.main(['inspect']))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60)
    told = json.loads(done.stdout)
    assert told["no_new_privs"] == 1
    assert told["oom"] >= OOM_SCORE_ADJ


def test_a_process_that_goes_even_earlier_stays_so() -> None:
    before = 'open("/proc/self/oom_score_adj", "w").write("900")'
    assert confined("print(json.dumps(look()))", before)["oom"] == 900
