"""The reference pages say what the code says, and leave nothing out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def test_no_generated_page_is_stale() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, f"run python docs/generate.py\n{checked.stdout}{checked.stderr}"


def test_every_name_of_the_api_is_on_its_page() -> None:
    import fedd.api

    page = (REFERENCE / "plugin-api.md").read_text("utf-8")
    missing = [name for name in fedd.api.__all__ if name not in page and name not in ("hookspec",)]
    assert missing == []


def test_every_route_and_error_is_on_its_page() -> None:
    from fedd.control.schema import ERRORS, ROUTES

    page = (REFERENCE / "control-api.md").read_text("utf-8")
    assert [r.operation for r in ROUTES if f"\n## {r.operation}\n" not in page] == []
    assert [code for code in ERRORS if f"| `{code}` |" not in page] == []


def test_every_configuration_key_is_on_its_page() -> None:
    from fedd.config_keys import KEYS

    page = (REFERENCE / "configuration.md").read_text("utf-8")
    for key in KEYS:
        section = page.split(f"\n## [{key.section}]\n", 1)[1].split("\n## ", 1)[0]
        assert f"| `{key.name}` |" in section, f"[{key.section}] {key.name}"


def test_every_command_in_the_documentation_exists() -> None:
    page = (REFERENCE / "fedctl.md").read_text("utf-8")
    known = set(re.findall(r"^## fedctl (\S+)$", page, re.MULTILINE))
    used: dict[str, str] = {}
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for block in re.findall(r"```(?:sh|console)?\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
            for command in re.findall(r"\bfedctl (?:--socket \S+ |--json )*([a-z]+)", block):
                used.setdefault(command, path.name)
    assert {command: where for command, where in used.items() if command not in known} == {}
