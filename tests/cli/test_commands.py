import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedd.api.errors import InvalidParameter, NotFound
from fedd.cli.federation import read_token
from fedd.cli.live import redraw

A = "12D3KooWCQdKCjTSiHZLAbwdsqb1SrPiU1fMFVSz4D3kSVmWvjGy"
B = "12D3KooWGdvygq9fz4szfmiS9a4u8H3bmXXRQaav6a5g9z19VTxZ"

STATUS = {
    "peer_id": A,
    "name": "a",
    "version": "0.1.0",
    "federation": "plant7",
    "addresses": [f"/ip4/127.0.0.1/tcp/1/p2p/{A}"],
    "uptime_s": 300.0,
    "rss_bytes": 40 * 2**20,
    "members": {"alive": 3, "suspect": 0, "dead": 1, "left": 0},
    "runs_active": 0,
    "plugins": ["consensus"],
}
MEMBERS = [
    {
        "peer_id": A,
        "name": "a",
        "state": "alive",
        "addresses": [f"/ip4/127.0.0.1/tcp/1/p2p/{A}", "/ip4/10.0.0.1/tcp/1"],
        "rtt_ms": None,
        "last_heard_s": None,
        "link": "self",
        "version": "0.1.0",
    },
    {
        "peer_id": B,
        "name": "b\x1b[2J",
        "state": "dead",
        "addresses": [],
        "rtt_ms": 0.25,
        "last_heard_s": 5.25,
        "link": "indirect",
        "version": "",
        "since_s": 7.0,
        "reason": "silent",
    },
]


def both(fedctl: Any, *arguments: str) -> tuple[Any, str]:
    """What a command prints for scripts and for people, exit 0 both times."""
    code, out, err = fedctl("--json", *arguments)
    assert (code, err) == (0, "")
    document = json.loads(out)
    code, out, err = fedctl(*arguments)
    assert (code, err) == (0, "")
    return document, out


def test_status(fedctl: Any) -> None:
    fedctl.answer("GET", "/v1/status", STATUS)
    document, text = both(fedctl, "status")
    assert document == STATUS
    assert "members     3 alive, 1 dead\n" in text
    assert "memory      40.0 MiB\n" in text
    assert "up          5 min\n" in text


def test_members(fedctl: Any) -> None:
    fedctl.answer("GET", "/v1/members", MEMBERS)
    document, text = both(fedctl, "members")
    assert document == MEMBERS
    heading, a, b = text.splitlines()
    assert heading.split() == (
        ["NAME", "PEER", "STATE", "SINCE", "WHY", "LINK", "RTT", "HEARD", "VERSION", "ADDRESS"]
    )
    assert a.split() == (
        ["a", A[:16], "alive", "-", "-", "self", "-", "-", "0.1.0", "/ip4/127.0.0.1/tcp/1", "(+1)"]
    )
    assert b.split("  ")[0] == "b\\x1b[2J"
    assert " ".join(b.split()[1:]) == f"{B[:16]} dead 7 s it fell silent - 0.25 ms 5.25 s - -"
    assert heading.index("STATE") == a.index("alive") == b.index("dead")


def test_wide_and_combining_characters_keep_the_columns(fedctl: Any) -> None:
    names = ["\u65e5\u672c", "a\u0301", "abcdef"]
    fedctl.answer("GET", "/v1/members", [MEMBERS[0] | {"name": name} for name in names])
    lines = fedctl("members")[1].splitlines()[1:]
    assert [line.partition(A[:16])[0] for line in lines] == [
        "\u65e5\u672c    ",  # 4 + 2 + 2 columns
        "a\u0301       ",
        "abcdef  ",
    ]


class Seconds:
    """Stands for `time`: each pause gives the next answer, after the last one comes Ctrl-C."""

    def __init__(self, fedctl: Any, answers: list[Any]) -> None:
        self._fedctl = fedctl
        self._answers = answers

    def sleep(self, pause_s: float) -> None:
        assert pause_s == 1.0
        if not self._answers:
            raise KeyboardInterrupt
        self._fedctl.answer("GET", "/v1/members", self._answers.pop(0))


def test_watching_members_prints_them_when_something_lasting_has_changed(
    fedctl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = [MEMBERS[0], MEMBERS[1] | {"last_heard_s": 6.25, "rtt_ms": 1.0}]
    alive = [MEMBERS[0], MEMBERS[1] | {"state": "alive"}]
    for arguments in (["members", "--watch"], ["--json", "members", "--watch"]):
        fedctl.answer("GET", "/v1/members", MEMBERS)
        monkeypatch.setattr("fedd.cli.node.time", Seconds(fedctl, [heard, alive]))
        code, out, err = fedctl(*arguments)
        assert (code, err) == (130, "fedctl: interrupted\n")
        if "--json" in arguments:
            assert [json.loads(line) for line in out.splitlines()] == [MEMBERS, alive]
        else:
            first, second = out.split("\n\n")
            assert " dead   7 s    it fell silent  -     " in first
            assert " alive  7 s    -    indirect" in second.splitlines()[2]


def test_watching_members_on_a_terminal_redraws(fedctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []
    fedctl.answer("GET", "/v1/members", MEMBERS)
    monkeypatch.setattr("fedd.cli.node.time", Seconds(fedctl, [MEMBERS[:1]]))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("fedd.cli.live.redraw", drawn.extend)
    assert fedctl("members", "--watch")[0] == 130
    assert fedctl.asked("GET") == [("/v1/members", None)] * 2


def test_a_redrawn_table_is_cut_to_the_terminal() -> None:
    file = io.StringIO()
    redraw([["NAME"], ["a" * 30, "b"]], Console(file=file, width=20, force_terminal=True))
    text = file.getvalue()
    assert "a" * 19 + "…" in text
    assert "a" * 20 not in text


def test_links(fedctl: Any) -> None:
    fedctl.answer("POST", "/v1/links", {"peer_id": B})
    fedctl.answer("DELETE", "/v1/links/b%2F", {"peer_id": B})
    assert both(fedctl, "connect", "/ip4/1.2.3.4/tcp/1/p2p/X") == ({"peer_id": B}, f"linked to {B}\n")
    assert fedctl.asked("POST")[0] == ("/v1/links", {"address": "/ip4/1.2.3.4/tcp/1/p2p/X"})
    assert both(fedctl, "disconnect", "b/") == ({"peer_id": B}, f"no longer linked to {B}\n")


LINK = {
    "peer_id": B,
    "name": "b",
    "member": True,
    "address": f"/ip4/127.0.0.1/tcp/1/p2p/{B}",
    "direction": "out",
    "age_s": 300.0,
    "rtt_ms": 0.25,
    "bytes_in": 2048,
    "bytes_out": 10,
    "bytes_in_per_s": 100.0,
    "bytes_out_per_s": 0.0,
    "streams": {"/fedd/presence/1.0.0": 1, "": 2, "odd": 1},
    "windows": {"buffered_bytes": 1024},
    "limits_reached": {"inbound_streams": 3},
    "agent": "fedd/0.1.0",
    "protocols": [],
    "observed_address": None,
    "retired": False,
    "relayed_by": None,
    "circuits": 2,
    "circuit_bytes": 2048,
}


def test_listing_links(fedctl: Any) -> None:
    stranger = {**LINK, "name": "", "member": False, "rtt_ms": None, "streams": {}, "limits_reached": {}}
    relayed = {**stranger, "member": True, "relayed_by": "gateway", "circuits": 0, "circuit_bytes": 0}
    fedctl.answer("GET", "/v1/links", [LINK, stranger, relayed])
    document, text = both(fedctl, "links")
    assert document[0] == LINK
    heading, first, second, third = text.splitlines()
    assert heading.split()[:5] == ["NAME", "PEER", "DIR", "AGE", "RTT"]
    assert first.startswith(f"b         {B[:16]}  out  5 min  0.25 ms  2.0 KiB (100 B/s)  10 B (0 B/s)")
    assert "presence 1, opening 2, odd 1" in first
    assert first.endswith("  inbound_streams 3  2 (2.0 KiB)  /ip4/127.0.0.1/tcp/1")
    assert second.startswith("stranger  ")
    assert third.startswith("-  ")
    assert third.split()[-4:] == ["-", "relayed", "by", "gateway"]
    fedctl.answer("GET", "/v1/links", [])
    assert both(fedctl, "links") == ([], "no links - see `fedctl connect` and `fedctl join`\n")


def test_limits(fedctl: Any) -> None:
    limits = [
        {"name": "connections", "present": 3, "maximum": 128, "reached": 0, "help": "open"},
        {"name": "link.buffered_bytes", "present": 1.5, "maximum": 33554432, "reached": 2, "help": "unread"},
    ]
    fedctl.answer("GET", "/v1/limits", limits)
    document, text = both(fedctl, "limits")
    assert document == limits
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["connections", "3", "128", "-", "open"],
        ["link.buffered_bytes", "1.5", "33554432", "2", "x", "unread"],
    ]


def test_ping(fedctl: Any) -> None:
    relayed = {"peer_id": B, "rtt_ms": [0.5], "relayed_by": "gateway"}
    fedctl.answer("POST", "/v1/ping", relayed)
    assert f"{B[:16]} through gateway: 0.500 / 0.500 / 0.500 ms" in both(fedctl, "ping", "b", "-c", "1")[1]
    fedctl.answer("POST", "/v1/ping", {"peer_id": B, "rtt_ms": [0.5, 1.0], "relayed_by": None})
    document, text = both(fedctl, "ping", "b", "-c", "2")
    assert document == {"peer_id": B, "rtt_ms": [0.5, 1.0], "relayed_by": None}
    assert text.splitlines() == ["1: 0.500 ms", "2: 1.000 ms", f"{B[:16]}: 0.500 / 0.750 / 1.000 ms"]
    assert fedctl.asked("POST")[-1][1] == {"peer": "b", "count": 2}


def test_federation(fedctl: Any) -> None:
    fedctl.answer("POST", "/v1/federation/init", {"federation": "plant7"})
    fedctl.answer("POST", "/v1/federation/join", {"federation": "plant7"})
    fedctl.answer("POST", "/v1/federation/leave", {"federation": "plant7"})
    fedctl.answer("POST", "/v1/federation/invite", {"token": "fedd1-x", "uses": 2, "expires_s": 7200.0})
    assert "plant7" in both(fedctl, "init", "plant7")[1]
    assert both(fedctl, "invite", "--uses", "2", "--expires", "2h")[1] == "fedd1-x\n"
    assert both(fedctl, "join", "fedd1-x")[1] == "member of plant7\n"
    assert both(fedctl, "leave")[1] == "left plant7\n"
    asked = dict(fedctl.asked("POST"))
    assert asked == {
        "/v1/federation/init": {"federation": "plant7"},
        "/v1/federation/invite": {"uses": 2, "expires_s": 7200.0, "approve": False},
        "/v1/federation/join": {"token": "fedd1-x"},
        "/v1/federation/leave": {},
    }


def test_admins_and_the_revoked(fedctl: Any) -> None:
    about = {"federation": "plant7", "peer_id": "12D3KooWB", "name": "b"}
    revoked = {**about, "by": "root", "epoch": 1, "stay": 0, "leave": 0}
    fedctl.answer("POST", "/v1/federation/grant", {**about, "role": "admin"})
    fedctl.answer("PUT", "/v1/federation/revoked/b", revoked)
    fedctl.answer("PUT", "/v1/federation/revoked/c", {**revoked, "name": "", "stay": 3, "leave": 1})
    fedctl.answer("DELETE", "/v1/federation/revoked/b", {**about, "by": "root", "epoch": 2})
    fedctl.answer(
        "GET", "/v1/federation/revoked", [{"peer_id": "12D3KooWB", "name": "b", "by": ["12D3KooWA"]}]
    )
    assert both(fedctl, "grant", "b", "admin")[1] == "b is an admin of plant7 now\n"
    assert both(fedctl, "revoke", "b")[1].startswith("b is revoked and cut off; it stays out")
    assert "of those it let in, 3 stay and 1 have to join anew" in both(fedctl, "revoke", "c")[1]
    assert "may join again" in both(fedctl, "revoke", "--undo", "b")[1]
    assert "12D3KooWB" in both(fedctl, "members", "--revoked")[1]
    assert fedctl("grant", "b", "king")[0] == 2


def test_newcomers_that_wait(fedctl: Any) -> None:
    waiting = {"peer_id": "12D3KooWC", "name": "c", "address": "/ip4/192.0.2.7/tcp/1", "waiting_s": 3.0}
    elsewhere = {**waiting, "peer_id": "12D3KooWD", "at": "12D3KooWB", "at_name": "gateway"}
    here = {**waiting, "at": "12D3KooWAAAAAAA", "at_name": ""}
    fedctl.answer("GET", "/v1/federation/pending", [here, elsewhere])
    states = {"gateway": "alive", "founder": "dead"}
    members = [{"name": name, "admin": True, "state": state} for name, state in states.items()]
    fedctl.answer("GET", "/v1/members", [*members, {"name": "c", "admin": False, "state": "dead"}])
    fedctl.answer(
        "POST", "/v1/federation/pending/12D3KooWC", {"federation": "plant7", "peer_id": "12D3KooWC"}
    )
    fedctl.answer(
        "DELETE", "/v1/federation/pending/12D3KooWC", {"federation": "plant7", "peer_id": "12D3KooWC"}
    )
    fedctl.answer("POST", "/v1/federation/leave", {"federation": None})
    code, out, err = fedctl("members", "--pending")
    assert code == 0
    assert [
        out.splitlines()[1].split()[1],
        out.splitlines()[1].split()[-1][:11],
    ] == ["12D3KooWC", "12D3KooWAAA"]
    assert out.splitlines()[2].split()[-1] == "gateway"
    assert err == "founder is an admin and dead: who waits there is not known\n"
    assert json.loads(fedctl("members", "--pending", "--json")[1]) == [here, elsewhere]
    assert both(fedctl, "approve", "12D3KooWC")[1].startswith("approved 12D3KooWC")
    assert both(fedctl, "deny", "12D3KooWC")[1] == "turned 12D3KooWC away\n"
    assert both(fedctl, "leave")[1] == "no longer waiting to be let in\n"


def test_the_root_key_goes_into_a_file_of_its_owner_alone(
    fedctl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "root.key"
    fedctl.answer("GET", "/v1/federation/root-key", {"federation": "plant7", "here": True})
    fedctl.answer("POST", "/v1/federation/root-key/export", {"federation": "plant7", "pem": "PEM\n"})
    fedctl.answer("POST", "/v1/federation/root-key/import", {"federation": "plant7", "here": True})
    fedctl.answer("POST", "/v1/federation/root-key/remove", {"federation": "plant7", "here": False})
    assert both(fedctl, "root", "show")[1] == "the root key of plant7 is on this device\n"
    assert "keep it where no network reaches" in fedctl("root", "export", str(path))[1]
    assert path.read_text() == "PEM\n"
    assert path.stat().st_mode & 0o777 == 0o600
    code, _, err = fedctl("root", "export", str(path))
    assert (code, "is there already" in err) == (7, True)
    assert fedctl("root", "export", str(tmp_path / "no" / "where"))[0] == 1
    assert fedctl("root", "export", "-")[1] == "PEM\n"
    assert '"pem"' in fedctl("--json", "root", "export", "-")[1]
    assert "can grant now" in both(fedctl, "root", "import", str(path))[1]
    assert "removed from this device" in both(fedctl, "root", "remove", str(path))[1]
    monkeypatch.setattr("sys.stdin", io.StringIO("PEM\n"))
    assert fedctl("root", "import", "-")[0] == 0
    sent = [body for path, body in fedctl.asked("POST") if not path.endswith("export")]
    assert all(body == {"pem": "PEM\n"} for body in sent)
    code, _, err = fedctl("root", "remove")
    assert (code, "needs a file" in err) == (2, True)
    assert fedctl("root", "import", str(tmp_path / "none"))[0] == 5


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"federation": "plant7", "admin": True, "root_key": True}, "plant7 (admin, root key here)"),
        ({"federation": "plant7"}, "plant7"),
        ({"federation": None, "waits_for": "12D3KooWB"}, "waits for 12D3KooWB to approve it"),
        (
            {"federation": None, "revoked": {"federation": "plant7", "reason": "x was revoked"}},
            "REVOKED from plant7: x was revoked",
        ),
        ({"federation": None, "revoked": None}, "none - see `fedctl init` and `fedctl join`"),
    ],
)
def test_status_says_why_there_is_no_federation(fedctl: Any, place: dict[str, Any], said: str) -> None:
    rest = {"name": "a", "peer_id": "12D3", "members": {}, "addresses": [], "runs_active": 0, "plugins": []}
    fedctl.answer("GET", "/v1/status", {**rest, "version": "0", "uptime_s": 1.0, "rss_bytes": 1, **place})
    assert said in fedctl("status")[1]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "confined    -\n"),
        ({"landlock": 7, "seccomp": True, "open": []}, "confined    plugins, by Landlock 7 and seccomp\n"),
        (
            {"landlock": 0, "seccomp": True, "open": ["the daemon's files"]},
            "confined    plugins, by seccomp - NOT from the daemon's files\n",
        ),
        (
            {"landlock": 0, "seccomp": False, "open": ["the network", "other processes"]},
            "confined    plugins, by nothing - NOT from the network, other processes\n",
        ),
    ],
)
def test_status_says_what_keeps_plugins_in(fedctl: Any, found: dict[str, Any] | None, said: str) -> None:
    fedctl.answer("GET", "/v1/status", {**STATUS, "confinement": found})
    assert said in fedctl("status")[1]


def test_a_terminal_is_told_what_to_do_with_a_token(fedctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fedctl.answer("POST", "/v1/federation/invite", {"token": "fedd1-x", "uses": 1, "expires_s": 3600.0})
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, out, err = fedctl("invite")
    assert (code, out, err) == (0, "fedd1-x\n", "good once, for 60 min: fedctl join TOKEN\n")


def test_a_token_comes_as_word_file_or_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token.txt"
    path.write_text(" fedd1-file\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("fedd1-stdin\n"))
    assert read_token("fedd1-word") == "fedd1-word"
    assert read_token(str(path)) == "fedd1-file"
    assert read_token("-") == "fedd1-stdin"
    with pytest.raises(InvalidParameter, match="empty"):
        read_token("-")
    for bad in (str(tmp_path / "none"), str(tmp_path), ""):
        with pytest.raises(NotFound, match="no readable file"):
            read_token(bad)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(NotFound):
        read_token(str(path))
