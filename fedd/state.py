"""The state directory: one owner at a time, every file replaced whole or not at all.

A write goes to a new file beside the old one (`O_EXCL|O_NOFOLLOW`, mode 0600), is flushed to the disk and
renamed over the old one, and the directory is flushed: a power cut leaves the old or the new content, never
a mixture.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from typing import ClassVar

from fedd.api.errors import Conflict, FeddError, InvalidParameter
from fedd.core.identity import PrivateKey

# The largest thing kept here is a run's result; its values are at most a few MiB. A larger file is not ours.
MAX_FILE_BYTES = 64 * 1024 * 1024

IDENTITY_NAME = "identity.key"
EPOCH_NAME = "epoch"
LOCK_NAME = "lock"

# One optional directory and a file; nothing that starts with a dot, so neither `..` nor our temporary files.
_NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class KeyExposed(FeddError):
    """Others can read the identity key: whoever copied it can pose as this node."""

    code: ClassVar[str] = "denied"


class StateUnusable(FeddError):
    """The state directory cannot be read or written, or what it holds is damaged."""


class StateDirectory:
    """Small files of one daemon under `path`, made with mode 0700 when missing.

    Names are `file` or `directory/file`, of letters, digits, `_`, `.` and `-`. All methods are
    synchronous: files are small, and a caller that goes on before the flush has lost the promise.
    """

    def __init__(self, path: str) -> None:
        """Open or make the directory. Raises StateUnusable."""
        self.path = os.path.abspath(path)
        self._lock_fd: int | None = None
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StateUnusable(
                f"cannot make the state directory {path}: {error.strerror}",
                hint="name another with --state-dir, or change its owner",
            ) from error

    def lock(self) -> None:
        """Become the directory's only owner until `unlock` or the end of the process.

        Raises Conflict while another process holds it, StateUnusable when the file cannot be made.
        """
        try:
            fd = os.open(
                os.path.join(self.path, LOCK_NAME),
                os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
        except OSError as error:
            raise self._unusable("lock", LOCK_NAME, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise self._unusable("lock", LOCK_NAME, error) from error
            who = f"the daemon with process id {holder}" if holder.isdigit() else "another daemon"
            raise Conflict(
                f"the state directory {self.path} is in use by {who}",
                hint="stop that daemon, or give this one its own --state-dir",
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self._lock_fd = fd

    def unlock(self) -> None:
        """Give the directory up. Does nothing when it is not held."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def read(self, name: str) -> bytes | None:
        """The file's content, None when there is no such file. Raises StateUnusable."""
        path = self._locate(name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable("read", name, error) from error
        try:
            return self._read_open(fd, name)
        finally:
            os.close(fd)

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Replace the file by `data`, durably and whole. Raises StateUnusable: the old content stands."""
        self.replace(name, data, mode)
        self.flush(name)

    def replace(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Like `write`, but in half the time: until `flush`, a power cut may bring the old content back."""
        path = self._locate(name)
        directory, base = os.path.split(path)
        temporary = os.path.join(directory, f".{base}.new")
        try:
            if directory != self.path:
                os.makedirs(directory, mode=0o700, exist_ok=True)
            fd = _create(temporary, mode)
            try:
                with open(fd, "wb", closefd=True) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(temporary, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise self._unusable("write", name, error) from error

    def flush(self, name: str) -> None:
        """Return when what `replace` wrote survives a power cut. Raises StateUnusable."""
        try:
            _flush_directory(os.path.dirname(self._locate(name)))
        except OSError as error:
            raise self._unusable("write", name, error) from error

    def remove(self, name: str) -> None:
        """Delete the file, durably. A missing file is no error. Raises StateUnusable."""
        path = self._locate(name)
        try:
            os.unlink(path)
            _flush_directory(os.path.dirname(path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable("remove", name, error) from error

    def names(self, directory: str = "") -> list[str]:
        """Sorted names of the files in `directory` of the state directory, each fit for `read`."""
        where = self._locate(directory) if directory else self.path
        try:
            found = [entry.name for entry in os.scandir(where) if entry.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable("list", directory or ".", error) from error
        names = [f"{directory}/{name}" if directory else name for name in found]
        return sorted(name for name in names if _NAME.fullmatch(name))

    def load_or_create_identity(self, credential: str | None = None) -> PrivateKey:
        """This node's key: from the file `credential`, else `identity.key`, made on first use with mode 0600.

        Raises KeyExposed when group or others may read `identity.key`, InvalidParameter when the file
        holds no Ed25519 key (it is never overwritten), StateUnusable when it cannot be read or made.
        """
        if credential is not None:
            # systemd grants the reading by an ACL, whose mask shows in the group bits: judge "others" alone.
            return self._load_key(credential, exposed_bits=0o007)
        path = self._locate(IDENTITY_NAME)
        if os.path.lexists(path):
            return self._load_key(path, exposed_bits=0o077)
        key = PrivateKey.from_seed(os.urandom(32))
        self.write(IDENTITY_NAME, key.to_pem())
        return key

    def raise_epoch(self, at_least: int = 0) -> int:
        """Raise the persisted counter above both its value and `at_least`, and return it (1 on first use).

        Raises StateUnusable when the stored counter is damaged: to guess lower would make peers
        ignore this node's records.
        """
        stored = self.read(EPOCH_NAME)
        if stored is None:
            epoch = 0
        elif re.fullmatch(rb"[0-9]{1,18}\n?", stored):
            epoch = int(stored)
        else:
            raise StateUnusable(
                f"the epoch counter {os.path.join(self.path, EPOCH_NAME)} is damaged",
                hint="write a number into it that is higher than any this node used before",
            )
        epoch = max(epoch, at_least) + 1
        self.write(EPOCH_NAME, b"%d\n" % epoch)
        return epoch

    def _locate(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise InvalidParameter(f"{name!r} is no name for a state file", field="name")
        return os.path.join(self.path, name)

    def _load_key(self, path: str, exposed_bits: int) -> PrivateKey:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable("read", os.path.basename(path), error) from error
        try:
            found = os.fstat(fd).st_mode
            mode = stat.S_IMODE(found)
            if not stat.S_ISREG(found):
                raise StateUnusable(
                    f"the identity key {path} is no regular file",
                    hint="restore it from a backup; moving it away gives this node a new identity",
                )
            if mode & exposed_bits:
                raise KeyExposed(
                    f"others can read or replace the identity key {path} (mode {mode:04o})",
                    hint=f"chmod 600 {path}, and make a new key if somebody may have copied it",
                )
            data = self._read_open(fd, os.path.basename(path))
        finally:
            os.close(fd)
        try:
            return PrivateKey.from_pem(data)
        except FeddError as error:
            raise InvalidParameter(
                f"{path} holds no usable Ed25519 key: {error.detail}",
                hint="restore it from a backup; moving it away gives this node a new identity",
                field=IDENTITY_NAME,
            ) from error

    def _read_open(self, fd: int, name: str) -> bytes:
        size = os.fstat(fd).st_size
        if size > MAX_FILE_BYTES:
            raise StateUnusable(f"{os.path.join(self.path, name)} has {size} bytes; fedd never wrote that")
        try:
            with open(fd, "rb", closefd=False) as file:
                return file.read(MAX_FILE_BYTES)
        except OSError as error:
            raise self._unusable("read", name, error) from error

    def _unusable(self, verb: str, name: str, error: OSError) -> StateUnusable:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror or str(error)
        return StateUnusable(
            f"cannot {verb} {name} in the state directory {self.path}: {reason}",
            hint="check the directory's owner, its mode and the free space",
        )


def _create(path: str, mode: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)  # left by a crash in the middle of a write; the lock keeps living writers away
        return os.open(path, flags, mode)


def _flush_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
