"""Makes the environments of the foreign peers: py-libp2p, js-libp2p, and gRPC for the benchmark.

    python tests/interop/environments.py [py] [js] [grpc]     all of them when none is named

They live outside the checkout, in `$XDG_CACHE_HOME/fedd-interop` (`~/.cache/fedd-interop`), each under
the hash of what it was made from, so a changed pin makes a new one. py-libp2p compiles a dependency: it
needs gcc and gmp.h (`apt-get install gcc libgmp-dev`); js-libp2p needs Node 20 or later with npm. Tests
ask `command_of` and skip with the reason when an environment is absent.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PY_PINS = HERE / "py" / "requirements.txt"
GRPC_PINS = HERE / "grpc" / "requirements.txt"
JS_FILES = (HERE / "js" / "package.json", HERE / "js" / "js_peer.mjs", HERE / "js" / "polyfill.mjs")
INSTALL_DEADLINE_S = 900.0  # py-libp2p compiles on a small machine


class Absent(Exception):
    """An environment is not there; the text says what to do about it."""


def cache_directory() -> Path:
    """Where all environments live; made by `main`, never inside the checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fedd-interop"


def _directory(kind: str) -> Path:
    sources = {"py": (PY_PINS,), "grpc": (GRPC_PINS,), "js": JS_FILES}[kind]
    digest = hashlib.sha256(sys.version.encode() if kind != "js" else b"")
    for source in sources:
        digest.update(source.read_bytes())
    return cache_directory() / f"{kind}-{digest.hexdigest()[:12]}"


def _ready(kind: str) -> Path:
    directory = _directory(kind)
    if not (directory / "complete").exists():
        raise Absent(f"no {kind} environment: run `python tests/interop/environments.py {kind}` once")
    return directory


def python_of(kind: str) -> str:
    """The interpreter of the virtual environment "py" or "grpc"; Absent when it was not made."""
    return str(_ready(kind) / "bin" / "python")


def command_of(kind: str) -> list[str]:
    """The command line of the foreign peer "py" or "js", without its verb; Absent when there is none."""
    if kind == "py":
        return [python_of("py"), str(HERE / "py" / "py_peer.py")]
    node = shutil.which("node")
    if node is None:
        raise Absent("no node on the PATH: js-libp2p needs Node 20 or later")
    return [node, str(_ready("js") / "js_peer.mjs")]


def _run(command: list[str], directory: Path) -> None:
    subprocess.run(command, cwd=directory, check=True, timeout=INSTALL_DEADLINE_S, stdin=subprocess.DEVNULL)


def _make_venv(directory: Path, pins: Path) -> None:
    _run([sys.executable, "-m", "venv", str(directory)], directory)
    _run([str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(pins)], directory)


def _make_js(directory: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Absent("no npm on the PATH: js-libp2p needs Node 20 or later with npm")
    for source in JS_FILES:
        shutil.copy(source, directory)
    _run([npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"], directory)


def make(kind: str) -> Path:
    """Make one environment unless it is complete already; returns its directory."""
    directory = _directory(kind)
    if (directory / "complete").exists():
        return directory
    # What an interrupted attempt left behind may be half an installation.
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if kind == "js":
        _make_js(directory)
    else:
        _make_venv(directory, PY_PINS if kind == "py" else GRPC_PINS)
    (directory / "complete").touch()
    return directory


def main(kinds: list[str]) -> int:
    failures = 0
    for kind in kinds or ["py", "js", "grpc"]:
        try:
            print(f"{kind}: {make(kind)}", flush=True)
        except (Absent, OSError, subprocess.SubprocessError) as error:
            print(f"{kind}: not made: {error}", file=sys.stderr, flush=True)
            failures += 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
