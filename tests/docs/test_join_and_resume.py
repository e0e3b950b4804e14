"""The algorithm of the page on joining does what the page says."""

from __future__ import annotations

import runpy
from pathlib import Path

from docs.pages import DOCS, blocks

PAGE = DOCS / "how-to" / "join-and-resume-a-run.md"

PRELUDE = """\
from dataclasses import dataclass
from typing import ClassVar
from fedd.api import Message, RunContext
from fedd.testing import Federation, Join, Kill, Restart
"""


def test_its_test_passes(tmp_path: Path) -> None:
    algorithm, test = blocks(PAGE, "python")
    (tmp_path / "count.py").write_text(PRELUDE + algorithm + test)
    names = runpy.run_path(str(tmp_path / "count.py"))
    assert [result.value for result in names["results"]] == [100] * 4
