"""What a process of plugins cannot reach, tried from within real ones; and what it still can."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from worker import strangers

from fedd.worker import __main__ as program
from fedd.worker import landlock
from fedd.worker.confinement import FILES, NETWORK, PROCESSES, UNIX_AND_UDP, Confinement, Walls


def tried_here() -> Confinement:
    """What this machine gives, or a container that it is."""
    code = (
        "import json; from fedd.worker.confinement import *; confine(); print(json.dumps(wall_off(Walls())))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True, timeout=60)
    return Confinement(*json.loads(done.stdout))


HERE = tried_here()
ABI = HERE.landlock
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for what only Linux has")
with_files = pytest.mark.skipif(
    ABI < 3, reason="this kernel's Landlock does not see all that is done to files"
)
with_scopes = pytest.mark.skipif(ABI < 6, reason="this kernel's Landlock knows no scopes")
with_filter = pytest.mark.skipif(
    not HERE.seccomp, reason="no seccomp here, or no filter for this architecture"
)

PRELUDE = """
import ctypes, fcntl, json, os, resource, signal, socket, subprocess, sys, threading
from fedd.worker import confinement, landlock, seccomp
from fedd.worker.confinement import Walls, confine, keep_signals, wall_off
state, own = sys.argv[1:]
above = os.path.dirname(state)
libc = ctypes.CDLL(None, use_errno=True)
tried = {}
# In place of the daemon, and with no more rights than this process will have. It ends with its input.
fewer = lambda: (confine(), confinement._drop_capabilities())
beside = subprocess.Popen(["/bin/sh", "-c", "read end"], stdin=subprocess.PIPE, preexec_fn=fewer)
daemon = beside.pid

def attempt(name, act):
    try:
        act()
        tried[name] = "done"
    except (OSError, subprocess.CalledProcessError) as error:
        tried[name] = type(error).__name__

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
"""


class Home(NamedTuple):
    """The daemon's state with a worker's own directory in it, and other files beside it."""

    path: Path
    state: Path
    own: Path

    def run(self, code: str, walls: str = "hidden=(state,), own=own", before: str = "") -> Any:
        """What `code` puts into `tried` within the walls: of an attempt "done" or the error's name."""
        program = f"{PRELUDE}\nconfine()\n{before}\nsaid = wall_off(Walls({walls}))\n{code}\n"
        arguments = [str(self.state), str(self.own)]
        command = [sys.executable, "-I", "-c", f"{program}print(json.dumps(tried))", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=self.own)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    state = tmp_path / "state"
    own = state / "scratch" / "1"
    own.mkdir(parents=True)
    other = state / "scratch" / "2"
    other.mkdir()
    (other / "notes").write_text("another's")
    (state / "identity.key").write_text("secret")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("1,2")
    (tmp_path / "list.txt").write_text("3")
    (tmp_path / "link.key").symlink_to(state / "identity.key")
    yield Home(tmp_path, state, own)
    assert (state / "identity.key").read_text() == "secret"
    assert (other / "notes").read_text() == "another's"


def all_refused(tried: dict[str, str]) -> bool:
    return bool(tried) and set(tried.values()) == {"PermissionError"}


def all_done(tried: dict[str, str]) -> bool:
    return bool(tried) and set(tried.values()) == {"done"}


KEY = 'key = os.path.join(state, "identity.key")\n'


@with_files
def test_the_daemons_files_are_out_of_reach(home: Home) -> None:
    tried = home.run(f"""{KEY}
attempt("read", lambda: open(key))
attempt("read by a link", lambda: open(os.path.join(above, "link.key")))
attempt("read by proc", lambda: open("/proc/self/root" + key))
attempt("write", lambda: open(key, "r+"))
attempt("empty", lambda: os.truncate(key, 0))
attempt("remove", lambda: os.unlink(key))
attempt("make a file", lambda: open(os.path.join(state, "new"), "w"))
attempt("make a directory", lambda: os.mkdir(os.path.join(state, "new")))
attempt("another's", lambda: open(os.path.join(state, "scratch/2/notes")))
""")
    assert all_refused(tried)


@with_files
def test_nor_does_a_program_that_it_starts_or_a_hard_link_reach_them(home: Home) -> None:
    tried = home.run(f"""{KEY}
attempt("program", lambda: subprocess.run(["/bin/cat", key], check=True, capture_output=True))
attempt("link", lambda: os.link(key, os.path.join(own, "copy")))
attempt("move", lambda: os.rename(key, os.path.join(own, "moved")))
""")
    assert tried.pop("program") == "CalledProcessError"
    assert set(tried.values()) <= {"OSError", "PermissionError"}  # or "it is another file system", EXDEV


@with_files
def test_what_stands_beside_them_is_read_as_before_and_so_is_what_comes_into_it(home: Home) -> None:
    writer = "read go; echo 4 > ../../../data/later.csv"
    tried = home.run(
        """
outside.communicate(b"go")
attempt("later", lambda: open(os.path.join(above, "data/later.csv")))
attempt("file", lambda: open(os.path.join(above, "list.txt")))
attempt("in a directory", lambda: open(os.path.join(above, "data/table.csv")))
attempt("list", lambda: os.listdir(above))
attempt("kernel's", lambda: open("/proc/cpuinfo"))
attempt("system's", lambda: open("/etc/passwd"))
""",
        before=f'outside = subprocess.Popen(["/bin/sh", "-c", "{writer}"], stdin=subprocess.PIPE)',
    )
    assert all_done(tried)


@with_files
def test_it_writes_in_its_own_directory_only_and_in_those_that_the_operator_names(home: Home) -> None:
    code = """
attempt("own", lambda: open("model.npy", "w").write("x"))
attempt("own directory", lambda: os.makedirs("a/b"))
attempt("own move", lambda: os.rename("model.npy", "a/b/model.npy"))
attempt("null", lambda: open("/dev/null", "w").write("x"))
attempt("memory", lambda: __import__("multiprocessing").Lock())
attempt("named", lambda: open(os.path.join(above, "data/out"), "w"))
"""
    assert all_done(home.run(code, 'hidden=(state,), own=own, writable=(os.path.join(above, "data"),)'))
    tried = home.run("""
for path in (os.__file__, os.path.expanduser("~/.profile")):
    if not os.path.realpath(path).startswith(("/tmp/", "/var/tmp/")):
        attempt(path, lambda: open(path, "a"))
attempt("process", lambda: open(f"/proc/{daemon}/oom_score_adj", "w"))
attempt("device file", lambda: os.mknod("disk", 0o060600, os.makedev(8, 0)))
""")
    assert all_refused(tried)


@with_files
def test_terminals_and_disks_are_closed(home: Home) -> None:
    tried = home.run("""
disks = [each for each in os.listdir("/dev") if os.path.exists(f"/sys/class/block/{each}")]
for device in ("tty", "pts/ptmx", *disks):
    if os.path.exists(f"/dev/{device}"):
        attempt(device, lambda: open(f"/dev/{device}", "rb", buffering=0))
""")
    assert all_refused(tried)


def test_a_process_of_roots_keeps_no_capability_but_for_reading_files(home: Home) -> None:
    tried = home.run("""
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
tried.update({each: int(status[each], 16) for each in ("CapPrm", "CapEff", "CapInh")})
""")
    assert set(tried.values()) <= {0, 0b010, 0b100, 0b110}


@with_files
def test_python_itself_is_read_even_when_it_lies_in_a_hidden_directory(home: Home) -> None:
    (home.state / "environment").mkdir()
    (home.state / "environment" / "module.py").write_text("found = True")
    before = 'sys.path.append(os.path.join(state, "environment"))'
    code = (
        'tried["found"] = __import__("module").found\nattempt("key", lambda: open(state + "/identity.key"))'
    )
    assert home.run(code, before=before) == {"found": True, "key": "PermissionError"}


@with_filter
def test_no_socket_can_be_made_to_anywhere(home: Home) -> None:
    tried = home.run("""
for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET", "AF_ALG", "AF_VSOCK"):
    attempt(family, lambda: socket.socket(getattr(socket, family), socket.SOCK_RAW))
attempt("datagrams", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
pair = socket.socketpair()[0]
attempt("bind", lambda: pair.bind("here"))
attempt("connect", lambda: pair.connect("/run/fedd.sock"))
attempt("ring", lambda: checked(libc.syscall(425, 8, ctypes.create_string_buffer(120))))
""")
    assert all_refused(tried)


def test_what_python_needs_of_sockets_and_processes_is_there(home: Home) -> None:
    assert all_done(
        home.run("""
attempt("pair", lambda: socket.socketpair())
attempt("thread", lambda: threading.Thread(target=len, args=("",)).start())
attempt("program", lambda: subprocess.run(["/bin/true"], check=True))
attempt("event loop", lambda: __import__("trio").run(__import__("trio").sleep, 0))
attempt("own group", lambda: os.killpg(0, 0))
attempt("itself", lambda: os.kill(os.getpid(), 0))
attempt("raise", lambda: signal.raise_signal(signal.SIGURG))
attempt("nice", lambda: os.nice(1))
attempt("limit", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
attempt("processors", lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)))
""")
    )


@with_filter
def test_an_operator_can_open_the_internet_and_opens_no_unix_socket(home: Home) -> None:
    tried = home.run(
        """
listener = socket.create_server(("127.0.0.1", 0))
attempt("connect", lambda: socket.create_connection(listener.getsockname()))
attempt("datagrams", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9)))
attempt("names", lambda: socket.getaddrinfo("localhost", 80))
attempt("unix", lambda: socket.socket(socket.AF_UNIX))
""",
        "hidden=(state,), own=own, network=True",
    )
    assert tried.pop("unix") == "PermissionError"
    assert all_done(tried)


OTHERS = """
attempt("signal", lambda: os.kill(daemon, 0))
attempt("signal by descriptor", lambda: signal.pidfd_send_signal(os.pidfd_open(daemon), 0))
attempt("memory", lambda: open(f"/proc/{daemon}/mem", "rb"))
attempt("environment", lambda: open(f"/proc/{daemon}/environ", "rb"))
attempt("trace", lambda: checked(libc.ptrace(16, daemon, 0, 0)))
attempt("priority", lambda: os.setpriority(os.PRIO_PROCESS, daemon, 19))
attempt("idle", lambda: os.sched_setscheduler(daemon, os.SCHED_IDLE, os.sched_param(0)))
attempt("limits", lambda: resource.prlimit(daemon, resource.RLIMIT_NOFILE, (4, 4)))
"""


@with_filter
@with_scopes
def test_other_processes_are_out_of_reach(home: Home) -> None:
    assert all_refused(home.run(OTHERS))


@with_filter
@with_scopes
def test_children_are_ended_as_before(home: Home) -> None:
    code = 'attempt("kill", subprocess.Popen(["/bin/sleep", "60"]).kill)'
    assert home.run(code) == {"kill": "done"}


@with_filter
def test_neither_are_they_where_landlock_knows_no_signals(home: Home) -> None:
    code = f"""{OTHERS}
tried["open"] = list(said.open)
pipe, _ = os.pipe()
attempt("ready for it", lambda: fcntl.fcntl(pipe, fcntl.F_SETOWN, daemon))
attempt("asynchronous", lambda: fcntl.ioctl(socket.socketpair()[0], 0x8901, daemon.to_bytes(4, "little")))
attempt("own group", lambda: os.killpg(0, 0))
attempt("itself", lambda: os.kill(os.getpid(), 0))
attempt("raise", lambda: signal.raise_signal(signal.SIGURG))
attempt("flags", lambda: fcntl.fcntl(pipe, fcntl.F_GETFD))
"""
    tried = home.run(code, before="landlock.restrict = lambda grants, network: landlock.Restricted()")
    assert [tried.pop(each) for each in ("own group", "itself", "raise", "flags")] == ["done"] * 4
    assert tried.pop("open") == [FILES]
    # Landlock keeps them from these.
    assert {tried.pop("memory"), tried.pop("environment")} <= {"done", "PermissionError"}
    assert all_refused(tried)


@with_filter
def test_a_parent_ends_its_children_and_these_nobody(home: Home) -> None:
    """As the inspector does, on a kernel whose Landlock knows no signals."""
    before = """
landlock.restrict = lambda grants, network: landlock.Restricted()
wall = wall_off
wall_off = lambda walls: wall(walls, parent=True)
"""
    tried = home.run(
        """
attempt("kill", subprocess.Popen(["/bin/sleep", "60"]).kill)
keep_signals(said)
attempt("daemon", lambda: os.kill(daemon, 0))
""",
        before=before,
    )
    assert tried == {"kill": "done", "daemon": "PermissionError"}


@with_filter
@pytest.mark.parametrize(
    ("abi", "lines", "missing"),
    [
        (7, "", []),
        (0, "", [FILES]),
        (0, "seccomp.knows_this_machine = lambda: False", [FILES, NETWORK, PROCESSES]),
        (4, "seccomp.knows_this_machine = lambda: False", [UNIX_AND_UDP, PROCESSES]),
        (7, "seccomp.knows_this_machine = lambda: False", [UNIX_AND_UDP]),
    ],
)
def test_what_the_kernel_lacks_is_said(home: Home, abi: int, lines: str, missing: list[str]) -> None:
    if abi > ABI:
        pytest.skip(f"this kernel's Landlock is {ABI}")
    before = f"landlock.abi = lambda: {abi}\n{lines}"
    tried = home.run("tried.update(landlock=said.landlock, open=list(said.open))", before=before)
    assert tried == {"landlock": abi, "open": missing}


def test_a_kernel_that_refuses_costs_nothing_but_the_walls(home: Home) -> None:
    before = """
def refuse(*_, **__):
    raise PermissionError(1, "a container's own filter")
landlock._create = refuse
seccomp._install = refuse
"""
    code = 'tried.update(zip(("landlock", "seccomp", "open"), said))'
    tried = home.run(code, before=before)
    assert tried == {"landlock": 0, "seccomp": False, "open": [FILES, NETWORK, PROCESSES]}


@with_scopes
def test_a_kernel_that_says_six_and_knows_no_signals_still_keeps_files(home: Home) -> None:
    before = """
create = landlock._create
def older(*words):
    if len(words) == 3:
        raise OSError(22, "Invalid argument")
    return create(*words)
landlock._create = older
"""
    code = f'{KEY}attempt("key", lambda: open(key))\nattempt("daemon", lambda: os.kill(daemon, 0))'
    assert all_refused(home.run(code, before=before))


@with_files
@with_filter
def test_a_plugin_finds_them_around_it_when_it_is_imported(tmp_path: Path) -> None:
    """The worker's own program, told what the daemon tells it."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "identity.key").write_text("secret")
    spy = f"""
import socket
for act in (lambda: open({str(tmp_path / "state/identity.key")!r}), socket.socket):
    try:
        act()
        raise SystemExit("it came through")
    except PermissionError:
        pass
"""
    site = tmp_path / "site"
    strangers.install(site, {"spy": "spy_plugin"}, {"spy_plugin": spy + strangers.GOOD})
    told = json.loads(strangers.run(site, "--hide", str(tmp_path / "state"), "inspect").stdout)
    assert [each["error"] for each in told["plugins"]] == [None]
    assert told["confinement"] == {"landlock": ABI, "seccomp": True, "open": []}
    free = json.loads(strangers.run(site, "--network", "inspect").stdout)
    assert "it came through" in free["plugins"][0]["error"]


def test_the_options_of_the_worker() -> None:
    line = ["--hide", "/a", "--network", "--hide", "/b", "--writable", "/c", "--own", "/d", "run", "7"]
    walls = Walls(hidden=("/a", "/b"), own="/d", writable=("/c",), network=True)
    assert program.read_walls(line) == (walls, ["run", "7"])
    assert program.read_walls(["inspect"]) == (Walls(), ["inspect"])


@with_files
@with_filter
def test_a_landlock_that_does_not_see_files_emptied_by_name_gets_help(home: Home) -> None:
    tried = home.run(
        f"""{KEY}
attempt("key", lambda: os.truncate(key, 0))
attempt("list", lambda: os.truncate(os.path.join(above, "list.txt"), 0))
""",
        before="landlock.abi = lambda: 2",
    )
    assert all_refused(tried)
    assert (home.path / "list.txt").read_text() == "3"


def test_an_older_landlock_is_asked_for_what_it_knows() -> None:
    """A ruleset with rights that the kernel does not know is refused as a whole."""
    unknown = {version: landlock.WRITE & ~landlock.known_rights(version) for version in range(1, 8)}
    by_version = {1: landlock.REFER | landlock.TRUNCATE, 2: landlock.TRUNCATE}
    assert unknown == {**dict.fromkeys(range(3, 8), 0), **by_version}


def test_around_something_hidden_all_else_is_open(tmp_path: Path) -> None:
    for name in ("a/b/hidden/x", "a/b/other", "a/c", "d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/file").touch()
    (tmp_path / "a/link").symlink_to("b")
    hidden = (str(tmp_path / "a/b/hidden"), str(tmp_path / "gone"))
    found = {Path(each).relative_to(tmp_path).as_posix() for each in landlock.openings(str(tmp_path), hidden)}
    assert found == {"a/b/other", "a/c", "a/file", "d"}
    assert list(landlock.openings(str(tmp_path / "d"), hidden)) == [str(tmp_path / "d")]
    assert list(landlock.openings(hidden[0], hidden)) == []


def test_of_a_crowd_beside_something_hidden_the_rest_stays_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        (tmp_path / name).mkdir()
    hidden = (str(tmp_path / "a"),)
    monkeypatch.setattr(landlock, "MAX_NEIGHBOURS", 4)
    assert len(list(landlock.openings(str(tmp_path), hidden))) == 3
    monkeypatch.setattr(landlock, "MAX_NEIGHBOURS", 2)
    assert len(list(landlock.openings(str(tmp_path), hidden))) in (1, 2)  # in the order of the directory


@with_files
def test_what_no_rule_can_be_made_for_stays_closed_and_costs_nothing_else(home: Home) -> None:
    before = """
grants = confinement._grants
more = [landlock.Grant(each, landlock.READ) for each in ("/no/such", "/proc/self/ns/net")]
confinement._grants = lambda walls: [*more, *grants(walls)]
"""
    tried = home.run(f'{KEY}attempt("key", lambda: open(key))', before=before)
    assert all_refused(tried)
