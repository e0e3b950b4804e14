import os
import socket
from pathlib import Path

import pytest

from fedd import paths


def test_the_socket_is_the_one_named_else_the_runtime_directorys_else_the_systems() -> None:
    assert paths.default_socket({"FEDD_SOCKET": "/x.sock", "XDG_RUNTIME_DIR": "/run/user/7"}) == "/x.sock"
    assert paths.default_socket({"XDG_RUNTIME_DIR": "/run/user/7"}) == "/run/user/7/fedd/fedd.sock"
    assert paths.default_socket({}) == "/run/fedd.sock"


def test_the_state_directory_is_systemds_else_xdgs_else_in_the_home() -> None:
    assert paths.default_state_dir({"STATE_DIRECTORY": "/var/lib/fedd:/b", "HOME": "/h"}) == "/var/lib/fedd"
    assert paths.default_state_dir({"XDG_STATE_HOME": "/s", "HOME": "/h"}) == "/s/fedd"
    assert paths.default_state_dir({"HOME": "/h"}) == "/h/.local/state/fedd"
    assert paths.default_state_dir({}).endswith("/.local/state/fedd")


def test_the_configuration_is_the_first_that_exists(tmp_path: Path) -> None:
    environ = {"CONFIGURATION_DIRECTORY": str(tmp_path / "etc"), "XDG_CONFIG_HOME": str(tmp_path / "user")}
    assert paths.default_config(environ) is None
    user = tmp_path / "user" / "fedd" / "fedd.toml"
    user.parent.mkdir(parents=True)
    user.touch()
    assert paths.default_config(environ) == str(user)
    system = tmp_path / "etc" / "fedd.toml"
    system.parent.mkdir()
    system.touch()
    assert paths.default_config(environ) == str(system)


def test_a_credential_is_found_where_systemd_puts_it(tmp_path: Path) -> None:
    assert paths.credential("identity.key", {}) is None
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert paths.credential("identity.key", environ) is None
    (tmp_path / "identity.key").touch()
    assert paths.credential("identity.key", environ) == str(tmp_path / "identity.key")


def test_a_path_too_long_for_a_socket_address_still_works(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    path = str(directory / "fedd.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with paths.socket_address(path) as address:
            assert len(address) <= paths.MAX_SOCKET_PATH_BYTES
            listener.bind(address)
        listener.listen()
        with paths.socket_address(path) as address:
            client.connect(address)
    with paths.socket_address("/short") as address:
        assert address == "/short"


def test_the_service_managers_words_are_taken_out_of_the_environment() -> None:
    environ = {
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "2",
        "PATH": "/bin",
    }
    manager = paths.take_service_manager(environ)
    assert manager == paths.ServiceManager("/run/n", 30.0, 2, False)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1", "WATCHDOG_PID": "1", "WATCHDOG_USEC": "5"}]
)
def test_what_is_meant_for_another_process_is_not_taken(environ: dict[str, str]) -> None:
    assert paths.take_service_manager(environ) == paths.ServiceManager("", 0.0, 0, False)


def test_the_journal_is_recognised_by_device_and_inode() -> None:
    found = os.fstat(2)
    assert paths.take_service_manager({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}).journal
    assert not paths.take_service_manager({"JOURNAL_STREAM": "1:1"}).journal


def test_a_daemons_private_directories_are_its_state_and_what_systemd_handed_over() -> None:
    assert paths.private_directories("state", {}) == (os.path.abspath("state"),)
    environ = {"CREDENTIALS_DIRECTORY": "/run/credentials/fedd.service"}
    assert paths.private_directories("/s", environ) == ("/s", "/run/credentials/fedd.service")
