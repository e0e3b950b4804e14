"""What tests of pages do with the code that a page shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks of code in that language, as they would be copied."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def pytest_passes(folder: Path, file: str, says: str) -> None:
    """The page's own tests, run where they were written to."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert says in ran.stdout


def mypy_passes(folder: Path, file: str) -> None:
    """The page's code is typed as it says that one can."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", file]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def fedd_accepts(folder: Path, configuration: str) -> None:
    """The daemon finds nothing wrong with it."""
    (folder / "fedd.toml").write_text(configuration)
    command = [sys.executable, "-m", "fedd", "--config", str(folder / "fedd.toml"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
