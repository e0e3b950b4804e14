from __future__ import annotations

import subprocess
import sys

from fedd.core.nearest import nearest


def test_the_nearest_name_or_none() -> None:
    assert nearest("consensu", iter(["max", "consensus", "min"])) == "consensus"
    assert nearest("zzz", ["max", "min"]) == ""
    assert nearest("max", []) == ""


def test_a_daemon_without_mistakes_does_not_load_the_comparison() -> None:
    program = "import sys, fedd.daemon; print('difflib' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"
    )
