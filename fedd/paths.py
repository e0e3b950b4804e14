"""Where sockets, state and configuration live. Imports nothing heavy: fedctl starts here too.

Next to `fedd.config` the only module that reads the environment. Sources of the names: the XDG Base Directory
Specification 0.8, systemd.exec(5) for `STATE_DIRECTORY`, `CONFIGURATION_DIRECTORY` and
`CREDENTIALS_DIRECTORY`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, MutableMapping
from typing import NamedTuple

SOCKET_NAME = "fedd.sock"
SYSTEM_SOCKET = "/run/fedd.sock"
SYSTEM_CONFIG = "/etc/fedd/fedd.toml"
CONFIG_NAME = "fedd.toml"

# sun_path of a Unix socket address holds 108 bytes on Linux, one of them the closing NUL.
MAX_SOCKET_PATH_BYTES = 107


def default_socket(environ: Mapping[str, str] | None = None) -> str:
    """The control socket when no `--socket` was given: `FEDD_SOCKET`, the XDG runtime directory, `/run`."""
    environ = os.environ if environ is None else environ
    if named := environ.get("FEDD_SOCKET"):
        return named
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(runtime, "fedd", SOCKET_NAME)
    return SYSTEM_SOCKET


def default_state_dir(environ: Mapping[str, str] | None = None) -> str:
    """The state directory when no `--state-dir` was given: systemd's, else the XDG state directory."""
    environ = os.environ if environ is None else environ
    if given := environ.get("STATE_DIRECTORY"):
        return given.split(":")[0]  # systemd joins several directories with colons; the first is ours
    if home := environ.get("XDG_STATE_HOME"):
        return os.path.join(home, "fedd")
    return os.path.join(_home(environ), ".local", "state", "fedd")


def default_config(environ: Mapping[str, str] | None = None) -> str | None:
    """The configuration file when no `--config` was given: the first that exists, else None."""
    environ = os.environ if environ is None else environ
    candidates: list[str] = []
    if given := environ.get("CONFIGURATION_DIRECTORY"):
        candidates.append(os.path.join(given.split(":")[0], CONFIG_NAME))
    config_home = environ.get("XDG_CONFIG_HOME") or os.path.join(_home(environ), ".config")
    candidates += [os.path.join(config_home, "fedd", CONFIG_NAME), SYSTEM_CONFIG]
    return next((path for path in candidates if os.path.lexists(path)), None)


def credential(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """A file handed over by systemd's `LoadCredential=`, None when there is none of that name."""
    environ = os.environ if environ is None else environ
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    path = os.path.join(directory, name)
    return path if os.path.lexists(path) else None


def private_directories(state_dir: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Where a daemon's keys and state are, absolute: no plugin may open what is there."""
    environ = os.environ if environ is None else environ
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    return (os.path.abspath(state_dir), *([credentials] if credentials else []))


@contextlib.contextmanager
def socket_address(path: str) -> Iterator[str]:
    """`path` as an address for bind or connect; one too long for the kernel goes through its directory."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        yield path
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


class ServiceManager(NamedTuple):
    """What systemd told this process; every field empty when it runs by hand."""

    notify_socket: str
    watchdog_s: float
    """Half of it is how often life must be shown; 0 means never."""
    listen_fds: int
    journal: bool
    """Whether standard error goes to the journal, which reads priorities off each line."""


def take_service_manager(environ: MutableMapping[str, str] | None = None) -> ServiceManager:
    """Read and remove the service manager's variables: they are for this process, not for its children.

    Sources: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3), systemd.exec(5) for `JOURNAL_STREAM`.
    """
    environ = os.environ if environ is None else environ
    taken = {
        name: environ.pop(name, "")
        for name in (
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
            "LISTEN_PID",
            "LISTEN_FDS",
            "LISTEN_FDNAMES",
        )
    }
    me = str(os.getpid())
    watchdog = taken["WATCHDOG_USEC"] if taken["WATCHDOG_PID"] in ("", me) else ""
    fds = taken["LISTEN_FDS"] if taken["LISTEN_PID"] == me else ""
    return ServiceManager(
        notify_socket=taken["NOTIFY_SOCKET"],
        watchdog_s=int(watchdog) / 1e6 if watchdog.isdecimal() else 0.0,
        listen_fds=int(fds) if fds.isdecimal() else 0,
        journal=_is_journal(environ.get("JOURNAL_STREAM", "")),
    )


def _is_journal(stream: str) -> bool:
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


def _home(environ: Mapping[str, str]) -> str:
    return environ.get("HOME") or os.path.expanduser("~")
