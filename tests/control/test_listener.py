import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from fedd.api.errors import Conflict, FeddError
from fedd.control.listener import caller_uid, open_control_socket, passed_sockets


def test_the_socket_is_for_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "new" / "fedd.sock"
    sock = open_control_socket(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    sock.release()
    assert not path.exists()


def test_a_living_daemons_socket_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "fedd.sock")
    first = open_control_socket(path)
    with pytest.raises(Conflict, match="another daemon answers at"):
        open_control_socket(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    first.release()


def test_a_dead_daemons_socket_is_taken_over(tmp_path: Path) -> None:
    path = str(tmp_path / "fedd.sock")
    dead = open_control_socket(path)
    dead.socket.close()
    assert os.path.exists(path)
    living = open_control_socket(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    living.release()


def test_only_ones_own_file_is_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "fedd.sock")
    first = open_control_socket(path)
    os.unlink(path)
    second = open_control_socket(path)
    first.release()
    assert os.path.exists(path)
    second.release()
    assert not os.path.exists(path)


def test_a_full_backlog_is_a_living_daemon(tmp_path: Path) -> None:
    path = str(tmp_path / "fedd.sock")
    first = open_control_socket(path)
    first.socket.listen(0)
    clients: list[socket.socket] = []

    def fill() -> None:
        while True:
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].setblocking(False)
            clients[-1].connect(path)

    try:
        with pytest.raises(BlockingIOError):
            fill()
        with pytest.raises(Conflict):
            open_control_socket(path)
    finally:
        for client in clients:
            client.close()
        first.release()


@pytest.mark.parametrize("kind", ["link", "dangling link", "file", "directory"])
def test_what_is_no_socket_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "fedd.sock"
    target = tmp_path / "target"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(target)
        if kind == "link":
            target.write_text("precious")
    with pytest.raises(Conflict, match=r"symbolic link|no socket"):
        open_control_socket(str(path))
    assert path.is_symlink() or path.exists()


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FeddError, match="cannot listen at"):
        open_control_socket(str(tmp_path / "file" / "fedd.sock"))


def test_a_deep_state_directory_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 150) / "fedd.sock"
    sock = open_control_socket(str(path))
    with pytest.raises(Conflict):
        open_control_socket(str(path))
    sock.release()
    assert not path.exists()


PASSED = """
import os, socket, sys
from fedd.control.listener import passed_sockets
os.dup2(int(sys.argv[1]), 3)
try:
    (sock,) = passed_sockets(1)
except Exception as error:
    print(error)
else:
    print(sock.path, os.get_inheritable(3))
    sock.release()
"""


def test_sockets_of_the_service_manager_are_used_and_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "fedd.sock")
    assert passed_sockets(0) == []
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_INET) as wrong:
        sock.bind(path)
        sock.listen()
        for given, said in ((sock, f"{path} False"), (wrong, "no Unix stream socket")):
            done = subprocess.run(
                [sys.executable, "-c", PASSED, str(given.fileno())],
                pass_fds=[given.fileno()],
                capture_output=True,
                text=True,
                check=True,
            )
            assert said in done.stdout, done.stderr
    assert os.path.exists(path)


async def test_the_kernel_names_the_caller() -> None:
    left, right = trio.socket.socketpair()
    async with trio.SocketStream(left), trio.SocketStream(right) as stream:
        assert caller_uid(stream) == os.geteuid()
