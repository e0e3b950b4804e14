"""A whole federation in one process, on virtual time: for the tests of algorithms and commands.

    from fedd.testing import Federation, Kill

    def test_the_survivors_agree() -> None:
        federation = Federation(5, topology="ring", seed=1, kills=[Kill(node=0, round=7, reaches="one")])
        results = federation.run(MyAlgorithm(), inputs=[1.0, 2.0, 3.0, 4.0, 5.0])
        assert all(result.value == ... for result in results if result.error is None)

The algorithm runs on the same context as in a worker process, over a simulated network: reliable, ordered
links with latency and loss (a lost message arrives later, as over any stream), deaths whose last messages
reach whom the test says, and a failure detector that needs its time. One seed gives the same result to the
last bit. Seconds of virtual time cost microseconds: nothing sleeps.

An algorithm that learns gets learners as inputs: `inputs=[Device(NumpySoftmax(), data) for data in parts]`.

Commands are tested on members that share a process:

    from fedd.testing import Commands

    def test_the_pump_obeys() -> None:
        commands = Commands([Pump], nodes=3)
        assert commands.send(0, 1, "pump", on=True) == {"on": True}
        commands.broadcast(0, "pump", on=False)
        assert [event.text for event in commands.events] == ["on", "off", "off", "off"]
"""

from __future__ import annotations

from fedd.testing.commands import Commands, LoggedEvent, StartedRun
from fedd.testing.federation import Federation, Join, Kill, Reach, Restart
from fedd.testing.learners import Device
from fedd.testing.outcomes import DroppedPeer, JoinedPeer, NodeResult

__all__ = [
    "Commands",
    "Device",
    "DroppedPeer",
    "Federation",
    "Join",
    "JoinedPeer",
    "Kill",
    "LoggedEvent",
    "NodeResult",
    "Reach",
    "Restart",
    "StartedRun",
]
