"""Who belongs, with real daemons: any admin in the founder's place, revocation, approval, allow-lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from federation.daemons import GUARD_S, Daemon, eventually, federation, result_of

from fedd.control.client import Client

pytestmark = pytest.mark.slow


def alive(daemon: Daemon) -> set[str]:
    """Who is alive, as this daemon sees it."""
    return {name for name, state in daemon.states().items() if state == "alive"}


def restart(*daemons: Daemon) -> None:
    """A power cut for all, then all start again."""
    for daemon in daemons:
        daemon.kill()
    for daemon in daemons:
        daemon.start()
    for daemon in daemons:
        daemon.wait_ready()


def test_another_admin_in_the_place_of_the_dead_founder() -> None:
    with federation(3, names=["founder", "second", "third"]) as fed:
        founder, second, third = fed
        refused = second.ctl("grant", "third", "admin")
        assert refused.code == 4
        assert "root key of plant7 is not on this device" in refused.err
        assert second.ctl("invite").code == 4
        granted = founder.ctl("grant", "second", "admin").ok()
        assert (granted["name"], granted["role"]) == ("second", "admin")
        assert second.ctl("status").ok()["admin"] is True
        founder.kill()
        late = fed.add("late")
        late.start().wait_ready()
        late.ctl("join", second.ctl("invite").ok()["token"]).ok()
        eventually(lambda: {"second", "third", "late"} <= alive(third), GUARD_S, "third sees the newcomer")
        restart(second, third, late)
        eventually(
            lambda: {"second", "third", "late"} <= alive(late), GUARD_S, "all but the founder are back"
        )
        assert second.ctl("status").ok()["admin"] is True
        # the issuer of the newcomer's certificate dies as well: its chain holds
        second.kill()
        restart(late)
        eventually(lambda: alive(third) == {"third", "late"}, GUARD_S, "two whose admins are dead")
        eventually(lambda: alive(late) == {"third", "late"}, GUARD_S, "and the other of them")


def test_the_root_key_is_exported_removed_and_brought_back(tmp_path: Path) -> None:
    with federation(2, names=["a", "b"]) as fed:
        a, b = fed
        copy = tmp_path / "root.key"
        assert a.ctl("root", "show").ok()["here"] is True
        a.ctl("root", "export", str(copy)).ok()
        assert copy.stat().st_mode & 0o777 == 0o600
        a.ctl("root", "remove", str(copy)).ok()
        assert not list(a.dir.glob("root-*.key"))
        refused = a.ctl("grant", "b", "admin")
        assert refused.code == 4
        assert "fedctl root import" in refused.err
        b.ctl("root", "import", str(copy)).ok()
        b.ctl("grant", "b", "admin").ok()
        assert b.ctl("status").ok()["admin"] is True
        b.ctl("invite").ok()
        assert copy.read_text().splitlines()[1] not in a.log.read_text() + b.log.read_text()


def test_a_revoked_member_stays_out_after_a_restart_of_everybody() -> None:
    with federation(4, names=["a", "b", "c", "thief"]) as fed:
        a, b, c, thief = fed
        peer = thief.peer_id()
        revoked = a.ctl("revoke", "thief").ok()
        assert (revoked["peer_id"], revoked["by"], revoked["epoch"]) == (peer, "root", 1)
        for daemon in (a, b, c):
            eventually(
                lambda d=daemon: d.states()["thief"] == "left", GUARD_S, "everybody says that it is out"
            )
        eventually(lambda: thief.ctl("status").ok()["revoked"], GUARD_S, "it is told")
        status = thief.ctl("status").ok()
        assert status["federation"] is None
        assert status["revoked"]["federation"] == "plant7"
        assert "is a member of plant7 no longer" in thief.log.read_text()
        member = next(m for m in b.ctl("members").ok() if m["name"] == "thief")
        assert (member["state"], member["reason"]) == ("left", "revoked")
        restart(a, b, c, thief)
        for daemon in (a, b, c):
            eventually(lambda d=daemon: alive(d) == {"a", "b", "c"}, GUARD_S, "the three are back")
            assert [one["peer_id"] for one in daemon.ctl("members", "--revoked").ok()] == [peer]
        assert "REVOKED" in thief.log.read_text() or thief.ctl("status").ok()["revoked"] is not None
        assert thief.ctl("join", a.ctl("invite").ok()["token"]).code == 4
        a.ctl("revoke", "--undo", peer[:20]).ok()
        thief.ctl("join", a.ctl("invite").ok()["token"]).ok()
        eventually(lambda: alive(c) == {"a", "b", "c", "thief"}, GUARD_S, "it is in again")


def test_a_newcomer_waits_for_approval_and_is_in_although_its_fedctl_has_gone() -> None:
    with federation(1, names=["a"]) as fed:
        a = fed[0]
        b, c = (fed.add(name).start().wait_ready() for name in ("b", "c"))
        token = a.ctl("invite", "--approve", "--uses", "2").ok()["token"]
        joining = b.popen("join", "-")
        joining.kill()  # before it could say anything: nothing has happened
        joining.communicate()
        joining = b.popen("join", token)
        (waiting,) = eventually(lambda: a.ctl("members", "--pending").ok(), GUARD_S, "b waits")
        assert (waiting["name"], waiting["peer_id"]) == ("b", b.peer_id())
        # b is told a moment after a has it in its list; until then it asks for its fedctl only
        eventually(lambda: b.ctl("status").ok()["waits_for"] == a.peer_id(), GUARD_S, "b knows that it waits")
        joining.kill()
        joining.communicate()
        assert b.ctl("status").ok()["waits_for"] == a.peer_id()
        assert a.states() == {"a": "alive"}
        b.kill()
        b.start().wait_ready()
        a.ctl("approve", waiting["peer_id"][:16]).ok()
        eventually(lambda: alive(a) == {"a", "b"} == alive(b), GUARD_S, "b is in by itself")
        joining = c.popen("join", token)
        (waiting,) = eventually(lambda: a.ctl("members", "--pending").ok(), GUARD_S, "c waits")
        a.ctl("deny", waiting["peer_id"]).ok()
        _, error = joining.communicate(timeout=GUARD_S)
        assert joining.returncode == 4, error
        assert alive(a) == {"a", "b"}


def test_an_admin_elsewhere_sees_who_waits_and_decides() -> None:
    with federation(3, names=["founder", "gateway", "member"]) as fed:
        founder, gateway, member = fed
        founder.ctl("grant", "gateway", "admin").ok()
        waiting, unwanted = (fed.add(name).start().wait_ready() for name in ("waiting", "unwanted"))
        token = founder.ctl("invite", "--approve", "--uses", "2").ok()["token"]
        for daemon in (waiting, unwanted):
            joining = daemon.popen("join", token)
            eventually(lambda d=daemon: d.ctl("status").ok()["waits_for"], GUARD_S, "it waits")
            joining.kill()  # the daemon goes on asking, for as long as it takes
            joining.communicate()
        rows = eventually(
            lambda: len(found := gateway.ctl("members", "--pending").ok()) == 2 and found,
            GUARD_S,
            "both wait",
        )
        assert {row["name"] for row in rows} == {"waiting", "unwanted"}
        assert {row["at_name"] for row in rows} == {"founder"}
        assert member.ctl("members", "--pending").code == 4
        assert member.ctl("approve", waiting.peer_id()).code == 4
        approved = gateway.ctl("approve", waiting.peer_id()[:20]).ok()
        assert approved["at"] == [founder.peer_id()]
        gateway.ctl("deny", unwanted.peer_id()).ok()
        eventually(lambda: unwanted.ctl("status").ok()["waits_for"] is None, GUARD_S, "it gives up")
        assert unwanted.ctl("status").ok()["federation"] is None
        eventually(
            lambda: alive(member) == {"founder", "gateway", "member", "waiting"},
            GUARD_S,
            "the approved one is in",
        )
        assert gateway.ctl("members", "--pending").ok() == []
        told: dict[str, str] = {}
        with Client(str(founder.socket)) as client:
            for event in client.stream("GET", "/v1/events", query={"since": "0"}):
                if event["kind"] == "federation" and "by" in event:
                    told[event["what"]] = event["by"]
                if len(told) == 2:
                    break
        assert told == {"approved": gateway.peer_id(), "denied": gateway.peer_id()}


def test_devices_that_list_each_other_need_no_founder(tmp_path: Path) -> None:
    with federation(3, names=["a", "b", "c"], formed=False) as fed:
        ids = [daemon.peer_id() for daemon in fed]
        first = fed[0].ctl("status").ok()["addresses"][0]
        for daemon in fed:
            daemon.kill()
        config = f'[federation]\nname = "plant8"\nallow = {ids}\n'
        for daemon in fed:
            daemon.start("--connect", first, config=config) if daemon is not fed[0] else daemon.start(
                config=config
            )
        for daemon in fed:
            daemon.wait_ready()
        for daemon in fed:
            eventually(lambda d=daemon: alive(d) == {"a", "b", "c"}, GUARD_S, "all see all")
        for words in (("init", "x"), ("invite",), ("leave",), ("revoke", "b"), ("root", "export", "-")):
            reply = fed[0].ctl(*words)
            assert reply.code == 7, (words, reply.err)
            assert "by allow-list" in reply.err


def test_a_run_goes_on_without_whoever_is_revoked_meanwhile() -> None:
    with federation(3, names=["a", "b", "thief"]) as fed:
        a, b, thief = fed
        fed.set_inputs([1.0, 3.0, 50.0])
        started = a.ctl(
            "run",
            "consensus",
            "iterations=60",
            "tolerance=0",
            "--input",
            "x",
            "--pace",
            fed.pace(0.2),
            "--quorum",
            "2",
            "--detach",
        ).ok()
        a.wait_round(started["run_id"], 4)
        a.ctl("revoke", "thief").ok()
        for daemon in (a, b):
            result = result_of(daemon, started["run_id"])
            assert result["state"] == "finished"
            (dropped,) = result["dropped"]
            assert dropped["peer_id"] not in (a.peer_id(), b.peer_id())
            assert "revoked" in dropped["reason"]
        assert result_of(thief, started["run_id"])["state"] in ("failed", "stopped")
