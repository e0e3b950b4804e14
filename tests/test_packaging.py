"""What the wheel holds: both programs, the plugins as entry points, the units, the demo's table."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from fedd import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("fedd-*.whl")
    return zipfile.ZipFile(path)


def info(wheel: zipfile.ZipFile, name: str) -> str:
    return wheel.read(f"fedd-{__version__}.dist-info/{name}").decode()


def plugins() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "plugins").glob("fedd_*/__init__.py"))


def test_it_has_both_programs_and_the_bundled_plugins(wheel: zipfile.ZipFile) -> None:
    parser = ConfigParser()
    parser.read_string(info(wheel, "entry_points.txt"))
    assert dict(parser["console_scripts"]) == {"fedd": "fedd.__main__:main", "fedctl": "fedd.cli.main:main"}
    bundled = {name.removeprefix("fedd_"): name for name in plugins()}
    assert dict(parser["fedd"]) == bundled
    names = set(wheel.namelist())
    assert {f"{module}/__init__.py" for module in bundled.values()} <= names


def test_it_has_all_modules_and_data_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for package in (ROOT / "fedd", *(ROOT / "plugins").glob("fedd_*")):
        for path in package.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(path.relative_to(package.parent)) in names
    assert {"fedd/py.typed", "fedd/demo/diabetes.csv"} <= names
    tops = {name.split("/")[0] for name in names}
    tops -= {f"fedd-{__version__}.dist-info", f"fedd-{__version__}.data"}
    assert tops == {"fedd", *plugins()}
    assert {"fedd_basics", "fedd_consensus", "fedd_regression"} <= tops


def test_it_has_the_units(wheel: zipfile.ZipFile) -> None:
    share = f"fedd-{__version__}.data/data/share/fedd/systemd/"
    for path in (ROOT / "systemd").rglob("*"):
        if path.is_file():
            assert wheel.read(share + str(path.relative_to(ROOT / "systemd"))) == path.read_bytes()


def test_it_says_what_it_needs_and_under_which_licence(wheel: zipfile.ZipFile) -> None:
    metadata = email.message_from_string(info(wheel, "METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Apache License" in info(wheel, "licenses/LICENSE")
    assert "cbor2>=6.2" in metadata.get_all("Requires-Dist", [])
    assert "fedctl demo" in metadata.get_payload()
