"""A seccomp filter (seccomp(2)): system calls that a plugin has no business with fail with EPERM.

It judges numbers and plain arguments only; what depends on a path is Landlock's affair. Calls of another
architecture or of the x32 interface all fail: their numbers mean something else.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Final

_SET_MODE_FILTER: Final = 1
_SPECULATION_AS_BEFORE: Final = 1 << 2
"""Before Linux 5.16 a filter else turns on mitigations that slow down all that the process computes."""

# Classic BPF (linux/filter.h): load a word of the arguments, compare, return.
_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_ANY_BIT: Final = 0x45
_AND: Final = 0x54
_RETURN: Final = 0x06

# Offsets in struct seccomp_data.
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16

_ALLOW: Final = 0x7FFF0000
_ERROR: Final = 0x00050000

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
"""Linux's own numbers, as the filter is Linux's."""
_SOCK_TYPE: Final = 0xF
_SOCK_DGRAM: Final = 2
_NEW_NAMESPACES: Final = 0x7E020000
"""clone(2): CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""

_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32: Final = 0x40000000

_F_SETOWN, _F_SETOWN_EX = 8, 15
_FIOSETOWN, _SIOCSPGRP = 0x8901, 0x8902
"""Who is sent a signal, of one's choice, when a descriptor becomes ready."""

_NUMBERS: Final[dict[str, tuple[int, int]]] = {
    # other processes' memory, descriptors and priorities
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    # signals
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    # the network, the control socket included
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    # ways around this filter and around Landlock
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_by_handle_at": (304, 265),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone": (56, 220),
    "clone3": (435, 435),
    "truncate": (76, 45),
    # the kernel itself
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "seccomp": (317, 277),
}
"""Of x86_64 (asm/unistd_64.h) and aarch64 (asm-generic/unistd.h)."""

_SIGNALS: Final = frozenset(
    {"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "fcntl", "ioctl"}
)
_ADDRESSING: Final = frozenset({"connect", "bind", "listen"})
_BY_ARGUMENT: Final = frozenset(
    {
        "clone",
        "clone3",
        "socket",
        "socketpair",
        "kill",
        "tkill",
        "tgkill",
        "fcntl",
        "ioctl",
        "truncate",
        "seccomp",
    }
    | {"prlimit64", "setpriority", "ioprio_set", "sched_setscheduler", "sched_setparam", "sched_setattr"}
)


def knows_this_machine() -> bool:
    """Whether there is a filter for the architecture that this process runs on, as itself."""
    return sys.platform == "linux" and os.uname().machine in _AUDIT_ARCH and sys.maxsize > 1 << 32


def restrict(*, network: bool, truncate: bool) -> None:
    """Refuse, to this process and all that it starts, everything but its own affairs.

    With `network`, IPv4 and IPv6 are open (Unix sockets are not); without `truncate` so is truncate(2), which
    Landlock of old kernels does not see. Needs `no_new_privs`. Raises OSError when the kernel refuses.
    """
    _install(_program(network=network, truncate=truncate))


def keep_signals() -> None:
    """Refuse signals to all but this process and its group: for kernels whose Landlock does not see them."""
    pid = os.getpid()
    filter = _Filter()
    filter.only("kill", 0, (0, pid, -pid & 0xFFFFFFFF))
    filter.only("tkill", 0, (pid,))
    filter.only("tgkill", 0, (pid,))
    for name in sorted(_SIGNALS - _BY_ARGUMENT):
        filter.refuse(name)
    filter.refuse_values("fcntl", 1, 0xFFFFFFFF, (_F_SETOWN, _F_SETOWN_EX))
    filter.refuse_values("ioctl", 1, 0xFFFFFFFF, (_FIOSETOWN, _SIOCSPGRP))
    _install(filter.end())


def _program(*, network: bool, truncate: bool) -> bytes:
    """The filter. Nothing in it asks who the caller is: it holds for all that is started too."""
    filter = _Filter()
    for name in sorted(_NUMBERS.keys() - _BY_ARGUMENT - _SIGNALS - _ADDRESSING):
        filter.refuse(name)
    if network:
        filter.only("socket", 0, (_AF_INET, _AF_INET6, _AF_NETLINK))
    else:
        for name in ("socket", *sorted(_ADDRESSING)):
            filter.refuse(name)
    if not truncate:
        filter.refuse("truncate")
    # A pair of datagram sockets can be turned to somebody else's address, one of streams cannot.
    filter.refuse_values("socketpair", 1, _SOCK_TYPE, (_SOCK_DGRAM,))
    filter.refuse_bits("clone", 0, _NEW_NAMESPACES)
    filter.refuse("clone3", errno.ENOSYS)  # its flags lie in memory; libc then calls clone
    for name in ("prlimit64", "sched_setscheduler", "sched_setparam", "sched_setattr"):
        filter.only(name, 0, (0,))  # of this process
    filter.only("setpriority", 1, (0,))
    filter.only("ioprio_set", 1, (0,))
    return filter.end()


class _Filter:
    """Instructions, one block for each call; a block that loads an argument goes on to no other."""

    def __init__(self) -> None:
        self._column = _column()
        self._code = bytearray()
        self._add(_LOAD, _ARCHITECTURE)
        self._add(_EQUAL, _AUDIT_ARCH[os.uname().machine], 1, 0)
        self._end_with(errno.EPERM)
        self._add(_LOAD, _NUMBER)
        self._add(_AT_LEAST, _X32, 0, 1)
        self._end_with(errno.EPERM)

    def refuse(self, name: str, code: int = errno.EPERM) -> None:
        """The call fails with `code`."""
        self._add(_EQUAL, _NUMBERS[name][self._column], 0, 1)
        self._end_with(code)

    def only(self, name: str, argument: int, values: tuple[int, ...]) -> None:
        """The call fails unless its argument (32 bits of it) is one of `values`."""
        self._begin(name, 1 + len(values) + 2)
        self._load(argument)
        for at, value in enumerate(values):
            self._add(_EQUAL, value, len(values) - at, 0)
        self._end_with(errno.EPERM)
        self._add(_RETURN, _ALLOW)

    def refuse_values(self, name: str, argument: int, mask: int, values: tuple[int, ...]) -> None:
        """The call fails when `argument & mask` is one of `values`."""
        self._begin(name, 4 + len(values))
        self._load(argument)
        self._add(_AND, mask)
        for at, value in enumerate(values):
            self._add(_EQUAL, value, len(values) - at, 0)
        self._add(_RETURN, _ALLOW)
        self._end_with(errno.EPERM)

    def refuse_bits(self, name: str, argument: int, bits: int) -> None:
        """The call fails when its argument has any of `bits`."""
        self._begin(name, 4)
        self._load(argument)
        self._add(_ANY_BIT, bits, 0, 1)
        self._end_with(errno.EPERM)
        self._add(_RETURN, _ALLOW)

    def end(self) -> bytes:
        """The whole: what was not refused is allowed."""
        self._add(_RETURN, _ALLOW)
        return bytes(self._code)

    def _begin(self, name: str, length: int) -> None:
        """Jump over a block of `length` unless it is this call's."""
        self._add(_EQUAL, _NUMBERS[name][self._column], 0, length)

    def _load(self, argument: int) -> None:
        """The low half of an argument: all that the kernel looks at of an int, and where its flags are."""
        self._add(_LOAD, _ARGUMENTS + 8 * argument)

    def _end_with(self, code: int) -> None:
        self._add(_RETURN, _ERROR | code)

    def _add(self, code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        self._code += struct.pack("=HBBI", code, if_true, if_false, value)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _install(code: bytes) -> None:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_void_p)
    program = _Program(len(code) // 8, code)
    number = _NUMBERS["seccomp"][_column()]
    if function(number, _SET_MODE_FILTER, _SPECULATION_AS_BEFORE, ctypes.addressof(program)) != 0:
        refused = ctypes.get_errno()
        raise OSError(refused, os.strerror(refused))


def _column() -> int:
    """Which of the numbers are this machine's."""
    return list(_AUDIT_ARCH).index(os.uname().machine)
