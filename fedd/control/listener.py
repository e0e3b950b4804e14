"""The control socket's file: made, taken over from a dead daemon, or handed in by systemd."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator

import trio

from fedd.api.errors import Conflict, FeddError
from fedd.paths import socket_address

# Connections wait here only while the event loop is busy; a burst of scripts fits, a flood is cut off early.
BACKLOG = 128

SOCKET_MODE = 0o660

# sd_listen_fds(3): the first descriptor that systemd passes.
FIRST_PASSED_FD = 3


class ControlSocket:
    """A listening Unix socket; `release` removes its file again when this process made it."""

    def __init__(self, sock: socket.socket, path: str, inode: tuple[int, int] | None) -> None:
        self.socket = sock
        self.path = path
        self._inode = inode

    def listener(self) -> trio.SocketListener:
        """The trio end of it."""
        return trio.SocketListener(trio.socket.from_stdlib_socket(self.socket))

    def release(self) -> None:
        """Close it, and remove the file if it is still the one that was made here."""
        # Before the close: as long as the socket is open, no other file gets its inode's number.
        if self._inode is not None:
            with contextlib.suppress(OSError):
                if _inode(self.path) == self._inode:
                    os.unlink(self.path)
        self.socket.close()


def open_control_socket(path: str) -> ControlSocket:
    """Listen at `path` (mode 0660); its directory is made with mode 0700 when missing.

    A socket that a dead daemon left is replaced. Raises Conflict when a living daemon answers there, or
    something that is no socket stands there (a symbolic link included); FeddError when it cannot be made.
    """
    path = os.path.abspath(path)
    directory = os.path.dirname(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with _alone_in(directory):
            _clear(path)
            with socket_address(path) as address:
                os.fchmod(sock.fileno(), SOCKET_MODE)  # what bind() gives the file, before the umask
                sock.bind(address)
            os.chmod(path, SOCKET_MODE)
            sock.listen(BACKLOG)
            inode = _inode(path)
    except OSError as error:
        sock.close()
        raise FeddError(
            f"cannot listen at {path}: {error.strerror}", hint="choose another place with --socket"
        ) from error
    except FeddError:
        sock.close()
        raise
    return ControlSocket(sock, path, inode)


def passed_sockets(count: int) -> list[ControlSocket]:
    """The `count` listening sockets handed over by the service manager (sd_listen_fds(3))."""
    sockets = []
    for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + count):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
            raise FeddError(
                f"the service manager passed descriptor {fd}, which is no Unix stream socket",
                hint="give fedd.socket a ListenStream= with a path",
            )
        sockets.append(ControlSocket(sock, str(sock.getsockname()), None))
    return sockets


def caller_uid(stream: trio.SocketStream) -> int:
    """The user id at the other end, as the kernel vouches for it (unix(7), SO_PEERCRED)."""
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


@contextlib.contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """Keep other starting daemons out, or two could both find a dead socket and one unlink the other's."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _clear(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "something that is no socket"
        raise Conflict(f"{path} is {what}", hint="remove it, or choose another place with --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            with socket_address(path) as address:
                probe.connect(address)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                os.unlink(path)  # nobody listens: its daemon is dead
                return
            if error.errno != errno.EAGAIN:  # EAGAIN: its backlog is full, so it is in use
                raise
    raise Conflict(
        f"another daemon answers at {path}", hint="stop it, or give this one its own --socket or --state-dir"
    )


def _inode(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
