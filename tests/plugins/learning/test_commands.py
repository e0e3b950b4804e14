"""P2PFL's commands by their names: starting, stopping, asking who lives."""

from __future__ import annotations

import pytest

from fedd.api import Conflict, Denied, InvalidParameter, NotFound
from fedd.testing import Commands
from fedd_learning import fedd_register_commands
from fedd_learning.commands import CONTROL, LISTED

DEVICES = {"digits": "numpy-softmax", "temperature": ""}


def test_all_of_p2pfl_are_listed() -> None:
    """Its names, of which `pre_send_model` has no use here."""
    wanted = "start_learning stop_learning model_initialized vote_train_set models_aggregated models_ready "
    wanted += "metrics heartbeat init_model partial_model full_model"
    assert set(wanted.split()) <= set(LISTED)
    assert fedd_register_commands() == list(LISTED.values())


def test_learning_starts_on_the_node_that_is_told() -> None:
    commands = Commands(CONTROL, nodes=3, inputs=DEVICES)
    answer = commands.send(0, 1, "start_learning", rounds=7, epochs=2, experiment_name="first")
    (run,) = commands.runs
    assert answer == {"run_id": run.run_id, "input": "digits"}
    assert (run.node, run.sender, run.algorithm, run.input, run.quorum) == (
        1,
        "node-00",
        "learning",
        "digits",
        "",
    )
    assert run.parameters == {"rounds": 7, "epochs": 2, "train_set": 0, "aggregator": "fedavg", "options": ""}
    (event,) = commands.events
    assert event.fields == {"run_id": run.run_id, "input": "digits", "experiment": "first"}


def test_nobody_starts_it_on_all_at_once() -> None:
    commands = Commands(CONTROL, inputs=DEVICES)
    with pytest.raises(Denied):
        commands.broadcast(0, "start_learning")
    assert not commands.runs


@pytest.mark.parametrize(
    ("inputs", "said"),
    [({"x": ""}, "there is no learner here"), ({"a": "sklearn", "b": "torch"}, "2 learners here: a, b")],
)
def test_which_learner_must_be_clear(inputs: dict[str, str], said: str) -> None:
    commands = Commands(CONTROL, inputs=inputs)
    with pytest.raises(InvalidParameter, match=said):
        commands.send(0, 1, "start_learning")
    assert not commands.runs
    commands.send(0, 1, "start_learning", input="b", quorum="2")
    assert (commands.runs[0].input, commands.runs[0].quorum) == ("b", "2")


def test_a_doubled_start_is_a_second_run_and_each_is_stopped_by_its_id() -> None:
    commands = Commands(CONTROL, inputs=DEVICES)
    first, second = (commands.send(0, 1, "start_learning") for _ in range(2))
    assert first != second
    with pytest.raises(Conflict, match="2 runs of learning are in progress here: 00000000, 00000000"):
        commands.send(0, 1, "stop_learning")
    assert isinstance(first, dict)
    assert commands.send(1, 0, "stop_learning", run=first["run_id"]) == {"run_id": first["run_id"]}
    assert [run.state for run in commands.runs] == ["stopped", "running"]
    assert commands.send(0, 0, "stop_learning") == {"run_id": commands.runs[1].run_id}
    with pytest.raises(NotFound, match="no run of learning is in progress here"):
        commands.send(0, 1, "stop_learning")
    with pytest.raises(NotFound, match="whose id begins with ffff"):
        commands.send(0, 1, "stop_learning", run="ffff")


def test_other_runs_are_left_alone() -> None:
    commands = Commands(CONTROL, inputs=DEVICES)
    commands.send(0, 1, "start_learning")
    commands.runs[0].algorithm = "consensus"
    with pytest.raises(NotFound):
        commands.send(0, 1, "stop_learning", run=commands.runs[0].run_id)
    assert commands.runs[0].state == "running"


def test_a_heartbeat_is_answered_with_who_lives() -> None:
    commands = Commands(CONTROL, nodes=3, states={0: "suspect", 2: "dead"})
    assert commands.send(0, 1, "heartbeat", time=12.5) == {
        "time": 12.5,
        "sender": "suspect",
        "members": {
            "node-00": {"name": "node-00", "state": "suspect"},
            "node-01": {"name": "node-01", "state": "alive"},
            "node-02": {"name": "node-02", "state": "dead"},
        },
    }
