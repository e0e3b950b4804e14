import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fedd.api.errors import Conflict, InvalidParameter
from fedd.state import EPOCH_NAME, IDENTITY_NAME, MAX_FILE_BYTES, KeyExposed, StateDirectory, StateUnusable


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(str(tmp_path / "state"))


def test_the_directory_is_made_for_its_owner_alone(state: StateDirectory) -> None:
    assert stat.S_IMODE(os.stat(state.path).st_mode) == 0o700


def test_a_directory_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateUnusable, match="cannot make the state directory"):
        StateDirectory(str(tmp_path / "file" / "state"))


def test_what_is_written_is_read_again(state: StateDirectory) -> None:
    assert state.read("thing") is None
    state.write("thing", b"one")
    state.write("thing", b"two")
    assert state.read("thing") == b"two"
    assert stat.S_IMODE(os.stat(f"{state.path}/thing").st_mode) == 0o600
    state.remove("thing")
    state.remove("thing")
    assert state.read("thing") is None


def test_a_file_may_lie_one_directory_down(state: StateDirectory) -> None:
    state.write("runs/b.json", b"2")
    state.write("runs/a.json", b"1")
    state.write("top", b"0")
    assert state.names("runs") == ["runs/a.json", "runs/b.json"]
    assert state.names() == ["top"]
    assert state.names("none") == []
    assert state.read("runs/a.json") == b"1"


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "/etc/passwd", ".hidden", "a/b/c", "a/../b", "a\x00b", "ä"]
)
def test_no_name_leads_out_of_the_directory(state: StateDirectory, name: str) -> None:
    for act in (state.read, state.remove, lambda name: state.write(name, b"")):
        with pytest.raises(InvalidParameter, match="no name for a state file"):
            act(name)


def test_a_write_that_fails_leaves_the_old_content(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.write("thing", b"old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateUnusable, match="No space left"):
        state.write("thing", b"new")
    monkeypatch.undo()
    assert state.read("thing") == b"old"
    assert os.listdir(state.path) == ["thing"]


def test_what_is_replaced_is_whole_at_once_and_durable_when_flushed(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def noting(fd: int) -> None:
        flushed.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noting)
    state.replace("thing", b"new")
    assert state.read("thing") == b"new"
    assert flushed == ["file"]
    state.flush("thing")
    assert flushed == ["file", "directory"]
    state.write("thing", b"newer")
    assert flushed == ["file", "directory"] * 2
    monkeypatch.setattr(os, "fsync", _broken)
    with pytest.raises(StateUnusable, match="Input/output error"):
        state.flush("thing")


def _broken(fd: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_a_crash_left_half_written_does_not_stand_in_the_way(state: StateDirectory) -> None:
    Path(state.path, ".thing.new").write_bytes(b"half")
    state.write("thing", b"whole")
    assert state.read("thing") == b"whole"
    assert os.listdir(state.path) == ["thing"]


def test_symbolic_links_are_not_followed(state: StateDirectory, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    os.symlink(victim, f"{state.path}/thing")
    with pytest.raises(StateUnusable, match="symbolic link"):
        state.read("thing")
    os.symlink(victim, f"{state.path}/.thing.new")
    state.write("thing", b"mine")
    assert victim.read_bytes() == b"precious"
    assert state.read("thing") == b"mine"


def test_a_file_beyond_the_bound_is_not_read(state: StateDirectory) -> None:
    with open(f"{state.path}/thing", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(StateUnusable, match="fedd never wrote that"):
        state.read("thing")


def test_a_directory_in_a_files_place_is_an_error_and_stays(state: StateDirectory) -> None:
    os.mkdir(f"{state.path}/thing")
    with pytest.raises(StateUnusable, match="thing"):
        state.read("thing")
    with pytest.raises(StateUnusable, match="thing"):
        state.remove("thing")
    with pytest.raises(StateUnusable, match="thing"):
        state.write("thing", b"")
    state.write("file", b"")
    with pytest.raises(StateUnusable, match="cannot list"):
        state.names("file")


def test_a_second_owner_is_refused_until_the_first_lets_go(state: StateDirectory) -> None:
    state.lock()
    other = StateDirectory(state.path)
    with pytest.raises(Conflict, match=f"in use by the daemon with process id {os.getpid()}"):
        other.lock()
    state.unlock()
    state.unlock()
    other.lock()
    other.unlock()


def test_a_dead_owner_holds_nothing(state: StateDirectory) -> None:
    script = "import os, sys; from fedd.state import StateDirectory as D; D(sys.argv[1]).lock(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script, state.path], check=False).returncode == 9
    state.lock()


def test_a_lock_that_is_a_link_is_refused(state: StateDirectory, tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", f"{state.path}/lock")
    with pytest.raises(StateUnusable, match="cannot lock"):
        state.lock()


def test_the_identity_is_made_once(state: StateDirectory) -> None:
    first = state.load_or_create_identity()
    path = f"{state.path}/{IDENTITY_NAME}"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert state.load_or_create_identity().peer_id == first.peer_id


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_can_read_or_write_is_refused(state: StateDirectory, mode: int) -> None:
    state.load_or_create_identity()
    path = f"{state.path}/{IDENTITY_NAME}"
    os.chmod(path, mode)
    with pytest.raises(KeyExposed, match="others can read or replace the identity key") as caught:
        state.load_or_create_identity()
    assert "chmod 600" in caught.value.hint


def test_rubbish_in_the_keys_place_is_never_overwritten(state: StateDirectory) -> None:
    state.write(IDENTITY_NAME, b"rubbish")
    with pytest.raises(InvalidParameter, match="no usable Ed25519 key"):
        state.load_or_create_identity()
    assert state.read(IDENTITY_NAME) == b"rubbish"
    os.remove(f"{state.path}/{IDENTITY_NAME}")
    os.mkdir(f"{state.path}/{IDENTITY_NAME}")
    with pytest.raises(StateUnusable, match="no regular file"):
        state.load_or_create_identity()


def test_a_credential_comes_first_and_may_be_readable_by_its_group(
    state: StateDirectory, tmp_path: Path
) -> None:
    own = state.load_or_create_identity()
    other = StateDirectory(str(tmp_path / "other"))
    given = other.load_or_create_identity()
    path = f"{other.path}/{IDENTITY_NAME}"
    os.chmod(path, 0o440)
    assert state.load_or_create_identity(path).peer_id == given.peer_id != own.peer_id
    os.chmod(path, 0o444)
    with pytest.raises(KeyExposed):
        state.load_or_create_identity(path)
    with pytest.raises(StateUnusable):
        state.load_or_create_identity(str(tmp_path / "none"))


def test_the_epoch_rises_at_every_start_and_above_what_was_seen(state: StateDirectory) -> None:
    assert [state.raise_epoch(), state.raise_epoch()] == [1, 2]
    assert state.raise_epoch(at_least=40) == 41
    assert StateDirectory(state.path).raise_epoch(at_least=3) == 42


def test_a_damaged_epoch_is_not_guessed(state: StateDirectory) -> None:
    state.write(EPOCH_NAME, b"4x")
    with pytest.raises(StateUnusable, match="epoch counter"):
        state.raise_epoch()
