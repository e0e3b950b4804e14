"""What several tests of faults need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def rogue_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A virtual environment with fedd and the rogue plugins."""
    venv = tmp_path_factory.mktemp("rogue") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", str(ROOT), str(Path(__file__).parent / "fedd_rogue")],
        check=True,
    )
    return str(python)
