"""P2PFL's commands among real daemons: one member has another start a run, and stop it."""

from __future__ import annotations

import pytest
from federation.daemons import GUARD_S, eventually, federation, result_of
from federation.test_learning import CONFIG, share_out

NAMES = {"n0", "n1", "n2"}


@pytest.mark.slow
def test_a_member_has_another_start_and_stop_learning() -> None:
    trusting = CONFIG + '[policy]\ninitiators = ["n0", "n1"]\n'
    with federation(3, configs=[trusting, trusting, trusting]) as fed:
        share_out(fed)
        listed = {command["name"]: command for command in fed[0].ctl("commands").ok()}
        assert listed["start_learning"]["audience"] == "direct"

        begun = fed[0].ctl("send", "n1", "start_learning", "rounds=3", "epochs=1").ok()
        assert begun["input"] == "digits"
        results = [result_of(daemon, begun["run_id"]) for daemon in fed]
        assert {result["state"] for result in results} == {"finished"}, [r.get("error") for r in results]
        assert {result["initiator"] for result in results} == {fed[1].peer_id()}
        assert {result["value"]["rounds"] for result in results} == {3}
        started = [event for event in fed[1].events() if event.get("text") == "learning started"]
        assert [(e["run_id"], e["peer_id"]) for e in started] == [(begun["run_id"], fed[0].peer_id())]

        # n2 may not start runs anywhere, so n1, which may, does not do it for n2.
        refused = fed[2].ctl("send", "n1", "start_learning", "rounds=3")
        assert (refused.code, "the policy here does not let n2 start runs" in refused.err) == (4, True)
        spread = fed[0].ctl("broadcast", "start_learning")
        assert (spread.code, "one member at a time" in spread.err) == (4, True)

        begun = fed[0].ctl("send", "n1", "start_learning", "rounds=10000", "input=digits").ok()
        eventually(lambda: fed[2].ctl("show", begun["run_id"]).code == 0, GUARD_S, "n2 takes part")
        assert fed[2].ctl("send", "n0", "stop_learning").ok() == {"run_id": begun["run_id"]}
        assert {result_of(daemon, begun["run_id"])["state"] for daemon in fed} == {"stopped"}

        alive = fed[0].ctl("send", "n2", "heartbeat", "time=1.5").ok()
        assert (alive["time"], alive["sender"]) == (1.5, "alive")
        assert {(seen["name"], seen["state"]) for seen in alive["members"].values()} == {
            (name, "alive") for name in NAMES
        }
