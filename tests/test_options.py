"""The daemon's command line, once read, is forgotten."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
sys.argv = ["fedd", "--check"]
from fedd.__main__ import main
assert main() == 0
print(sorted({"argparse", "gettext", "fedd.options"} & sys.modules.keys()))
import gc
print([kind for kind in gc.get_objects() if isinstance(kind, type) and kind.__module__ == "argparse"])
"""


def test_nothing_of_the_parser_stays_in_memory() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[1:] == ["[]", "[]"]
