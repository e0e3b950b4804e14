"""Three daemons by hand, as the tutorial shows, and what they agree on."""

from __future__ import annotations

from federation.daemons import GUARD_S, federation, result_of


def test_three_daemons_agree_on_the_mean_wherever_the_run_is_started() -> None:
    with federation(3, names=["a", "b", "c"]) as fed:
        for daemon, value in zip(fed, (20.5, 21.0, 23.0), strict=True):
            assert daemon.ctl("set", "temp", str(value)).ok() == {"input": "temp", "value": value}
        result = fed[1].ctl("run", "consensus", "--input", "temp").ok()
        assert abs(result["value"] - 21.5) <= 1e-12
        assert result["state"] == "finished"
        for daemon in fed:
            own = result_of(daemon, result["run_id"])
            assert own["value"] == result["value"]
            assert own["contributors"] == sorted(d.peer_id() for d in fed)
            assert own["dropped"] == []


def test_a_daemon_without_a_federation_accepts_nobody() -> None:
    with federation(2, formed=False) as fed:
        fed[0].ctl("init", "plant7").ok()
        address = fed[0].ctl("status").ok()["addresses"][0]
        # a stranger may hold a link for a while, but it is nobody's member
        fed[1].ctl("connect", address)
        assert list(fed[0].states()) == ["n0"]
        assert "n0" not in fed[1].states()
        refused = fed[1].ctl("run", "consensus")
        assert refused.code != 0
        assert refused.err.count("\n") == 1


def test_leave_is_seen_as_left_and_a_new_token_brings_it_back() -> None:
    with federation(3) as fed:
        leaver = fed[2]
        leaver.ctl("leave").ok()
        for daemon in fed.daemons[:2]:
            from federation.daemons import eventually

            eventually(lambda d=daemon: d.states()["n2"] == "left", GUARD_S, "n2 is seen as left")
        token = fed[1].ctl("invite")
        # only an admin invites, and the founder is the only one
        assert token.code == 4
        leaver.ctl("join", fed[0].ctl("invite").ok()["token"]).ok()
        fed.wait_alive()


def test_a_token_of_one_use_lets_one_in() -> None:
    with federation(3, formed=False) as fed:
        fed[0].ctl("init", "plant7").ok()
        token = fed[0].ctl("invite").ok()["token"]
        fed[1].ctl("join", token).ok()
        refused = fed[2].ctl("join", token)
        assert refused.code == 4
        assert "token" in refused.err


def test_members_come_back_by_themselves_after_a_restart_of_all() -> None:
    with federation(3) as fed:
        for daemon in fed:
            assert daemon.stop() == 0
        for daemon in fed:
            daemon.start()
        for daemon in fed:
            daemon.wait_ready()
        fed.wait_alive()
