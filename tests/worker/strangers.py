"""Makes installed plugins out of text: a directory for the search path with modules and entry points."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install(
    site: Path, entry_points: Mapping[str, str], modules: Mapping[str, str], name: str = "strangers"
) -> None:
    """Write a distribution: its metadata, its entry points of the group `fedd` and its modules."""
    info = site / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = "".join(f"{point} = {value}\n" for point, value in entry_points.items())
    (info / "entry_points.txt").write_text(f"[fedd]\n{lines}")
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)


def command(site: Path, *arguments: str) -> list[str]:
    """The worker's command line, isolated as in production, with `site` on its search path.

    Nothing else has entry points there: the installed ones are hidden from importlib.metadata.
    """
    program = (
        "import sys, importlib.metadata as m\n"
        f"sys.path[:0] = [{str(site)!r}, {str(ROOT)!r}]\n"
        "from fedd.worker.__main__ import main\n"
        "old = m.distributions\n"
        f"m.distributions = lambda **k: old(path=[{str(site)!r}])\n"
        f"sys.exit(main({list(arguments)!r}))\n"
    )
    return [sys.executable, "-I", "-c", program]


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(site, *arguments), capture_output=True, text=True, timeout=60, check=False)


GOOD = '''
"""A plugin."""
from dataclasses import dataclass, field
from typing import ClassVar, Literal
from fedd.api import hookimpl, RunContext, Message

@dataclass(frozen=True)
class Echo:
    """Says what it hears.

    More text.
    """
    name: ClassVar[str] = "echo"
    times: int = field(default=2, metadata={"help": "how often"})
    mode: Literal["loud", "quiet"] = "loud"

    async def run(self, ctx: RunContext) -> Message:
        print("a plugin may print")
        for number in range(self.times):
            ctx.report(number=number)
            heard = await ctx.exchange([ctx.me, ctx.input])
        return {peer: value for peer, value in heard.items()}

@hookimpl
def fedd_register_algorithms():
    return [Echo]
'''
