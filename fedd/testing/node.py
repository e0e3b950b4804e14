"""One device of a simulated federation: through the epochs of its run, and through restarts of its own.

What epochs are due is decided by `fedd.core.epochs`, as among daemons.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from fedd.api.errors import Dropped, FeddError, InvalidMessage, QuorumLost, TimedOut
from fedd.api.types import Message, PeerId
from fedd.core.epochs import (
    CLOSING_TAG,
    End,
    Epochs,
    Mark,
    News,
    closing_rounds,
)
from fedd.core.graph import Graph
from fedd.core.mail import Item, Receipt
from fedd.core.pieces import Arrived, Payload, whole
from fedd.core.rounds import Action, Completed, Rounds, Send
from fedd.core.run_terms import RESTART
from fedd.testing.edges import CutEdges
from fedd.testing.learners import data_of, lend
from fedd.testing.mail import RUN_ID, DeviceMail, MailEnd
from fedd.testing.outcomes import DroppedPeer, JoinedPeer
from fedd.worker import arrays
from fedd.worker.context import Context, Round, RunStart, run_algorithm
from fedd.worker.metrics import Metric

if TYPE_CHECKING:
    from fedd.testing.simulation import Simulation
    from fedd.worker.context import Outcome

LAST_LETTERS_S = 10.0
"""How long a device that is done waits for neighbours that have not read its letters, as a daemon does."""


@dataclass(frozen=True)
class Epoch:
    """An epoch as its proposer told it."""

    mark: Mark
    graph: Graph
    round: int
    newcomers: tuple[PeerId, ...]
    lost: Mapping[PeerId, str] = field(default_factory=dict)
    """Why those are out whom its proposer has lost."""


class Node(MailEnd):
    """One device: its side of the rounds, and the port that its context sees."""

    def __init__(self, simulation: Simulation, index: int, epoch: Epoch) -> None:
        federation = simulation.federation
        self.simulation = simulation
        self.index = index
        self.peer_id = federation.peer_ids[index]
        self.given = simulation.inputs[index]
        self.kill = next((kill for kill in federation.kills if kill.node == index), None)
        self.life = 1
        """Rises when it is started again after a kill: verdicts are about one life."""
        self.scope = trio.CancelScope()
        self.turn = trio.CancelScope()
        self.entered = trio.Event()
        self.in_run = self.peer_id in epoch.graph.members
        self.ended = self.killed = self.tells = False
        self.error: FeddError | None = None
        self.value: Message = None
        self.outcome: Outcome | None = None
        self.kept: dict[Mark, tuple[Message, Outcome]] = {}
        self.finished_in: Mark | None = None
        self.state: Payload | None = None
        self.completed: Completed | None = None
        self.wake = trio.Event()
        self.missed: list[tuple[Epoch, Callable[[], None]]] = []
        """What came of epochs that it was not in yet, or no more."""
        self.verdicts: dict[PeerId, tuple[str, int]] = {}
        self.untold: dict[PeerId, str] = {}  # about members that are no neighbours any more
        self.edges = CutEdges(self.peer_id, epoch.graph)
        self.dropped: dict[PeerId, DroppedPeer] = {}
        self.joined: dict[PeerId, JoinedPeer] = {}
        self.metrics: dict[str, Metric] = {}
        self.context: Context | None = None
        self._begin(epoch)

    @property
    def round(self) -> int:
        """Exchanges completed, in all epochs."""
        return self.epoch.round + self.rounds.round

    @property
    def running(self) -> bool:
        """Whether it takes part at present."""
        return self.in_run and not (self.ended or self.killed)

    def _begin(self, epoch: Epoch) -> None:
        simulation, federation = self.simulation, self.simulation.federation
        self.epoch = epoch
        self.rounds = Rounds(epoch.graph.neighbors(self.peer_id), federation.max_payload_bytes)
        self.mail = DeviceMail(
            self.peer_id, epoch.graph.neighbors(self.peer_id), federation.max_payload_bytes, self
        )
        self.completed = None
        self.untold = {}
        self.edges = CutEdges(self.peer_id, epoch.graph)
        if epoch.mark.number == 1:
            self.epochs = Epochs(
                self.peer_id,
                epoch.graph.members,
                simulation.contract,
                simulation.joinable,
                simulation.quorum,
                epoch.mark,
            )

    # ---- life ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the algorithm to its end, however that comes, in as many epochs as it takes."""
        while True:
            with self.scope:
                try:
                    await self._take_part()
                except FeddError as error:
                    self.error = error
            if not self.killed:
                break
            self.error = FeddError(f"{self.peer_id} was killed in exchange {self.round}")
            self.simulation.node_ended(self)
            if not await self.simulation.restarted(self):
                break
        if self.scope.cancelled_caught and not self.killed and self.error is None:
            waiting = ", ".join(self.rounds.waiting_for) or "nobody"
            self.error = TimedOut(
                f"{self.peer_id} did not end; it is in exchange {self.round} and waits for {waiting}"
            )
        self.ended = True
        if not self.killed:
            self.simulation.node_ended(self)
        self.simulation.look()

    async def _take_part(self) -> None:
        """Until this device's end in the run. Raises FeddError."""
        while not self.ended:
            if self.in_run:
                self.turn = trio.CancelScope()
                with self.turn:
                    await self._one_epoch()
                    return
            else:
                await self.entered.wait()
        if self.error is not None:
            raise self.error

    async def _one_epoch(self) -> None:
        federation, epoch = self.simulation.federation, self.epoch
        start = RunStart(
            run_id=RUN_ID,
            me=self.peer_id,
            graph=epoch.graph,
            epoch=epoch.mark.number,
            seed=federation.seed,
            quorum=self.simulation.quorum,
            max_payload_bytes=federation.max_payload_bytes,
            round=epoch.round,
            restored=self.state,
            newcomers=epoch.newcomers,
            initiator=federation.peer_ids[0],
        )
        self.context = Context(start, self, data_of(self.given))
        await lend(self.given, self.context)
        outcome = await run_algorithm(self.simulation.algorithm, self.context)
        self.value = arrays.decode(arrays.encode(outcome.value), federation.max_payload_bytes)
        with trio.move_on_after(LAST_LETTERS_S):
            await self.mail.flush()
        await trio.lowlevel.checkpoint_if_cancelled()
        self.outcome, self.finished_in = outcome, epoch.mark
        if self.epochs.closes:
            self.epochs.keep()
            self.kept[epoch.mark] = (self.value, outcome)
            for _ in range(closing_rounds(epoch.graph, self.epochs.contract)):
                await self.exchange(CLOSING_TAG, dict.fromkeys(self.rounds.neighbors, b""))

    def end(self, error: FeddError | None) -> None:
        """End its part, well (with the result it keeps) or not."""
        self.error = error
        self.ended = True
        self.in_run = True
        self.entered.set()
        self.turn.cancel()

    def start_again(self, scope: trio.CancelScope) -> None:
        """The device is back after a kill, with what was on its disk."""
        self.scope = scope
        self.life += 1
        self.killed = self.in_run = False
        self.missed = []
        self.kill = self.error = None
        self.entered = trio.Event()
        self.verdicts = {}

    # ---- port ----------------------------------------------------------------------------

    async def exchange(self, tag: str, payloads: Mapping[PeerId, Arrived]) -> Round:
        """`fedd.worker.context.Port`."""
        sent = {peer: whole(payload) for peer, payload in payloads.items()}
        if self.kill is not None and self.kill.round <= self.round:
            await self._die(tag, sent)
        self.simulation.reached(self, self.round)
        self.wake = trio.Event()
        self.perform(self.rounds.begin(tag, sent))
        await self.wake.wait()
        await trio.lowlevel.checkpoint_if_cancelled()  # by an epoch that began in the same moment
        completed, self.completed = self.completed, None
        if completed is None:
            raise RuntimeError("woken without a round")
        finished = {peer for peer, reason in completed.gone.items() if reason == "finished"}
        cut = completed.gone.keys() & self.edges.mine
        gone = {peer: reason for peer, reason in completed.gone.items() if peer not in finished | cut}
        exchanging = self.rounds.neighbors  # who was released, and was ahead, is so once more
        gone.update({peer: why for peer, why in self.untold.items() if peer not in exchanging})
        self.untold = {peer: why for peer, why in self.untold.items() if peer in exchanging}
        for peer in sorted(gone):
            self._note_dropped(peer, self.epoch.round + completed.round, gone[peer])
        return Round(
            self._undropped({peer: whole(message) for peer, message in completed.messages.items()}),
            gone,
            cut=tuple(sorted(cut)),
            finished=tuple(sorted(finished)),
            other_tags=completed.other_tags,
        )

    def _undropped(self, messages: Mapping[PeerId, Payload]) -> Mapping[PeerId, Payload]:
        """What is left of an exchange over links that lose messages."""
        chance = self.simulation.federation.drop
        if not chance:
            return messages
        draw = random.Random(f"{self.simulation.federation.seed}/drop/{self.index}/{self.round}")
        return {peer: payload for peer, payload in messages.items() if draw.random() >= chance}

    def report(self, metrics: Mapping[str, Metric]) -> None:
        """`fedd.worker.context.Port`."""
        self.metrics.update(metrics)

    def cut(self, peer: PeerId, reason: str) -> None:
        """`fedd.worker.context.Port`."""
        reason = f"bad message: {reason}"
        self.simulation.tell_cut(self, peer, reason)
        if self.epochs.contract == RESTART:
            self._lose(peer, reason, blamed=True)
        else:
            self._part(self.peer_id, peer, reason)

    async def checkpoint(self, state: Payload) -> None:
        """`fedd.worker.context.Port`."""
        self.state = state

    def carry_mail(self, peer: PeerId, number: int, receipt: Receipt, item: Item | None) -> None:
        """`fedd.testing.mail.Carrier`."""
        self.simulation.send_mail(self, peer, number, receipt, item)

    def perform(self, actions: Sequence[Action]) -> None:
        """Do what the rounds say."""
        for action in actions:
            match action:
                case Send():
                    self.simulation.send(self, action)
                case Completed() if not self.epochs.frozen:
                    self.completed = action
                    self.wake.set()
                case _:
                    pass  # this epoch has lost a member and is not finished: the next one begins soon

    async def _die(self, tag: str, payloads: Mapping[PeerId, Payload]) -> None:
        near = list(self.rounds.neighbors)
        reaches = self.kill.reaches if self.kill is not None else ()
        peer_ids = self.simulation.federation.peer_ids
        if isinstance(reaches, str):
            reached = {"none": near[:0], "one": near[:1], "some": near[::2], "all": near}[reaches]
        else:
            reached = [peer for peer in near if peer_ids.index(peer) in reaches]
        for peer in reached:
            self.simulation.send(self, Send(peer, self.rounds.round, tag, payloads[peer]))
        self.killed = True
        self.scope.cancel()
        await trio.sleep_forever()

    # ---- members and epochs --------------------------------------------------------------

    def _note_dropped(self, peer: PeerId, round: int, reason: str) -> None:
        self.dropped.setdefault(peer, DroppedPeer(peer, round, reason))

    def judge(self, peer: PeerId, reason: str, life: int) -> None:
        """Membership's verdict arrives: this member is out of the run."""
        if self.ended or self.killed or peer in self.verdicts:
            return
        if self.simulation.nodes[peer].life == life:
            if reason.startswith("left: "):
                reason = self.edges.blame(peer, reason)
            self.verdicts[peer] = (reason, life)
            if self.in_run:
                self._lose(peer, reason)

    def hear_cut(self, by: PeerId, peer: PeerId, reason: str) -> None:
        """A member says that it goes on without its edge to `peer`, because of what that sent."""
        if self.ended or self.killed or not self.in_run:
            return
        if self.epochs.contract != RESTART:
            self._part(by, peer, reason)
        elif peer == self.peer_id and by not in self.epochs.blamed:
            self.end(InvalidMessage(f"{by} can make nothing of what this node sent: {reason}"))

    def _part(self, by: PeerId, peer: PeerId, reason: str) -> None:
        other = self.edges.add(by, peer, reason)
        for lost, why in self.edges.out(self.epochs.out).items():
            self.epochs.lose(lost, trio.current_time())
            self.untold[lost] = why
            self.mail.depart(lost, why, "gone")
            if lost in self.rounds.neighbors and lost not in self.edges.mine:  # it hears, and nobody hears it
                self.simulation.tell_cut(self, lost, why)
                self.edges.add(self.peer_id, lost, why)
                self.perform(self.rounds.release(lost, why))
        if other is not None:
            self.mail.depart(other, reason, "cut")
            self.perform(self.rounds.release(other, reason))

    def _lose(self, peer: PeerId, reason: str, *, blamed: bool = False) -> None:
        if peer not in self.epochs.present or peer in self.epochs.finished:
            return
        self.epochs.lose(peer, trio.current_time(), blamed=blamed)
        if self.epochs.frozen:
            self._note_dropped(peer, self.round, reason)
        if self.epochs.lost:
            self.end(
                QuorumLost(f"members left: {len(self.epochs.present)}, the quorum is {self.epochs.quorum}")
            )
            return
        self._propose_in_time()
        self._release(peer, reason)

    def _release(self, peer: PeerId, reason: str) -> None:
        if not self.epochs.frozen:
            self.mail.depart(peer, reason, "finished" if reason == "finished" else "gone")
        if peer in self.rounds.neighbors:
            self.perform(self.rounds.release(peer, reason))
        elif reason != "finished":
            self.untold[peer] = reason

    def hear_end(self, peer: PeerId, mark: Mark) -> None:
        """A member says that it has finished in this epoch."""
        if self.ended or self.killed or not self.in_run:
            return
        match self.epochs.hear_end(peer, mark):
            case End.COMMIT:
                self.finished_in = mark
                self.value, self.outcome = self.kept[mark]
                self.end(None)
            case End.NEIGHBOR:
                self._release(peer, "finished")
            case End.EXCLUDED:
                self.end(Dropped("the others finished without this node"))

    def let_in(self, peer: PeerId) -> str:
        """Somebody asks to be let in: why not, empty when the next epoch will have it."""
        refusal = self.epochs.refusal(peer)
        if not refusal:
            self.epochs.let_in([peer], trio.current_time())
            self._propose_in_time()
        return refusal

    def _propose_in_time(self) -> None:
        at = self.epochs.due_at
        if at is not None:
            self.simulation.schedule(at, (2, 0, self.index, self.index), self.propose)

    def propose(self) -> None:
        """Tell everybody of the next epoch, if it is still due."""
        if not self.running:
            return
        following = self.epochs.propose(trio.current_time())
        if following is not None:
            self.simulation.announce(self, following.number, following.members, following.newcomers)

    def hear(self, epoch: Epoch) -> None:
        """An epoch is told of: by its proposer, or by whoever is in it already."""
        if self.ended or self.killed or not (self.in_run or self.peer_id in epoch.newcomers):
            return  # one that was restarted has lost its place in all epochs but those that it comes with
        before = self.epochs.members
        now = trio.current_time()
        news = self.epochs.hear(epoch.mark, epoch.graph.members, now, epoch.newcomers)
        if news is News.EXCLUDED and self.in_run:
            if self.simulation.joinable:
                self.in_run = False
                self.entered = trio.Event()
                self.turn.cancel()
                self.simulation.ask_in(self)
            else:
                self.end(Dropped("the other members declared this node dead and went on without it"))
        if news is not News.ENTER:
            return
        for peer in before:
            if peer not in epoch.graph.members:
                why = self.verdicts.get(peer, (epoch.lost.get(peer, "dead"), 0))[0]
                self._note_dropped(peer, self.round, why)
        for peer in epoch.newcomers:
            self.dropped.pop(peer, None)
            self.joined[peer] = JoinedPeer(peer, epoch.mark.number, epoch.round)
            self.verdicts.pop(peer, None)
        self._begin(epoch)
        self.in_run = True
        self.entered.set()
        self.turn.cancel()
        self._propose_in_time()
        self.simulation.hear_the_ended(self)
        missed, self.missed = self.missed, []
        for of, again in missed:
            if of is epoch:
                self.simulation.schedule(trio.current_time(), (0, 0, self.index, self.index), again)
            else:
                self.missed.append((of, again))
        for peer, (reason, life) in list(self.verdicts.items()):
            if self.simulation.nodes[peer].life == life:
                self._lose(peer, reason)
