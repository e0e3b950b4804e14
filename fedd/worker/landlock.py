"""Landlock (landlock(7)): a process gives up for good what is not its own: files, TCP, foreign processes.

The kernel's rules only allow, and what is allowed of a directory is allowed of all below it. So a directory
is hidden by allowing all that stands beside it and beside the directories above it. What is made later
directly in one of those stays closed; in every other directory it is open as the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import itertools
import os
import stat
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
"""syscalls(2): the same numbers on every architecture."""
_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_WRITE_FILE, _READ_FILE = 1 << 1, 1 << 2
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK = 1 << 6, 1 << 7, 1 << 8, 1 << 9
_MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 10, 1 << 11, 1 << 12
REFER: Final = 1 << 13
TRUNCATE: Final = 1 << 14

READ: Final = _READ_FILE
"""Of files. Lists of directories and the facts of stat(2) are nobody's secret here: without them Python would
not find a package that lies beside the state directory."""
WRITE: Final = (
    _READ_FILE
    | _WRITE_FILE
    | _REMOVE_DIR
    | _REMOVE_FILE
    | _MAKE_DIR
    | _MAKE_REG
    | _MAKE_FIFO
    | _MAKE_SYM
    | REFER
    | TRUNCATE
)
"""Whatever a program does in a directory of its own. Nobody may make device files, or sockets to be called
at."""
_HANDLED: Final = WRITE | _MAKE_CHAR | _MAKE_BLOCK | _MAKE_SOCK
_OF_A_FILE: Final = _READ_FILE | _WRITE_FILE | TRUNCATE

_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1

MAX_NEIGHBOURS: Final = 8192
"""Entries of a directory in which something is hidden; each takes a rule of 7 us and some 100 bytes of the
kernel's memory. What is beyond them stays closed."""


class Grant(NamedTuple):
    """What may be done (READ or WRITE) with all that is below `path`, except what is hidden there.

    Paths are absolute and without symbolic links.
    """

    path: str
    rights: int
    hidden: tuple[str, ...] = ()


class Restricted(NamedTuple):
    """What the kernel took on: version, and whether `files`, their `truncation` by name, `tcp` and `signals`
    to strangers are kept from this process."""

    abi: int = 0
    files: bool = False
    truncation: bool = False
    tcp: bool = False
    signals: bool = False


def abi() -> int:
    """The version of Landlock in this kernel, 0 for none."""
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError):
        return _call(_CREATE_RULESET, None, 0, _VERSION)
    return 0


def restrict(grants: Iterable[Grant], *, network: bool) -> Restricted:
    """Give up, for this process and all that it starts, what is not granted, as far as the kernel can.

    Other processes (signals, tracing) and, without `network`, TCP are given up too. Needs `no_new_privs`.
    Raises OSError when the kernel knows Landlock and refuses.
    """
    version = abi()
    if not version:
        return Restricted()
    handled = known_rights(version)
    tcp = version >= 4 and not network
    ruleset, signals = _ruleset(version, handled, tcp)
    try:
        for grant in grants:
            for path in openings(grant.path, grant.hidden):
                _allow(ruleset, path, grant.rights & handled)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return Restricted(version, True, version >= 3, tcp, signals)


def openings(path: str, hidden: tuple[str, ...]) -> Iterator[str]:
    """`path`, or, if something hidden lies below it, all beside that and beside the directories above it.

    Symbolic links are left out: what they lead to counts.
    """
    if path in hidden:
        return
    if not any(each.startswith(path.rstrip("/") + "/") for each in hidden):
        yield path
        return
    with contextlib.suppress(OSError), os.scandir(path) as entries:  # a closed or vanished one hides itself
        for entry in itertools.islice(entries, MAX_NEIGHBOURS):
            if entry.is_dir(follow_symlinks=False):
                yield from openings(entry.path, hidden)
            elif not entry.is_symlink() and entry.path not in hidden:
                yield entry.path


def known_rights(version: int) -> int:
    """The rights over files that this version can withhold."""
    rights = _HANDLED
    if version < 2:
        rights &= ~REFER
    if version < 3:
        rights &= ~TRUNCATE
    return rights


def _ruleset(version: int, handled: int, tcp: bool) -> tuple[int, bool]:
    """(descriptor, whether signals are withheld): Red Hat's 5.14 says 6 and knows no signals."""
    network = _BIND_TCP | _CONNECT_TCP if tcp else 0
    if version >= 6:
        try:
            return _create(handled, network, _ABSTRACT_SOCKETS | _SIGNALS), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return (_create(handled, network) if version >= 4 else _create(handled)), False


def _create(*attributes: int) -> int:
    """A ruleset of as many words of struct landlock_ruleset_attr as this kernel has."""
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    return _call(_CREATE_RULESET, packed, len(packed), 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Add a rule. What is not there (any more), or is none of this user's or of Landlock's, stays closed."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                rights &= _OF_A_FILE
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, fd))
        finally:
            os.close(fd)


def _call(number: int, *arguments: int | bytes | None) -> int:
    """syscall(2) with up to four arguments. Raises OSError."""
    result = _syscall()(number, *arguments, *(0,) * (4 - len(arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


@functools.cache
def _syscall() -> Callable[..., int]:
    """libc's, looked up once: there are hundreds of rules. Numbers and addresses fill one register alike."""
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.argtypes = (ctypes.c_long, *(ctypes.c_void_p,) * 4)
    function.restype = ctypes.c_long
    return function
