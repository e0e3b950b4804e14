"""One member's part of a run of learning: what the workflow decides is done here, over the run's context."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fedd.api import (
    Contribution,
    InvalidMessage,
    InvalidParameter,
    Message,
    NotConnected,
    PeerId,
    RunContext,
)
from fedd_learning.agreement import Agreement
from fedd_learning.along import Along, Offers, together
from fedd_learning.history import NOT_CHOSEN, History
from fedd_learning.layout import Layout, digest
from fedd_learning.means import mean_of_whole
from fedd_learning.messages import (
    MAX_TEXT_CHARS,
    Metrics,
    ModelInitialized,
    ModelsAggregated,
    ModelsReady,
    ModelTrained,
    RunMessage,
    VoteTrainSet,
    names,
)
from fedd_learning.spread import CopySpread, MeanSpread, Spread, WholeSpread, goes_whole
from fedd_learning.training import Trainer, Training
from fedd_learning.workflow import Event, Plan, State, Statements, Workflow

if TYPE_CHECKING:
    from fedd.api.types import Array
    from fedd_learning import Learning

MAX_STATE_FACTOR = 8
"""An aggregator's state, in models: SCAFFOLD's and FedAdam's have one or two."""
TAG = "learning"
KEPT_ROUNDS_BYTES = 1024 * 1024
"""Up to this size of model and state every round is kept for a restart; of larger ones every tenth. Writing
4 MB takes 40 ms of a round, and only a power cut of all ever needs it: otherwise somebody has the newest."""


class Node:
    """The model, what is known of it, and a method for each state of the workflow."""

    def __init__(self, algorithm: Learning, ctx: RunContext) -> None:
        self._algorithm = algorithm
        self._ctx = ctx
        self._aggregator = ctx.aggregator(algorithm.aggregator, options_of(algorithm.options))
        self._trainer = Trainer(algorithm, ctx.learner, self._aggregator)
        self._model = self._trainer.first_model()
        self._shapes = Layout.of(self._model)
        self._state: list[Array] = list(self._aggregator.start(self._model))
        self._own: Sequence[Array] = []
        self._training: Training | None = None
        """Of the round under way."""
        self._ahead: Training | None = None
        """Of the next one, while not all have said yet that they hold the same model."""
        self._along: Along | None = None
        """The first exchanges of `spread`, which went along with the offers."""
        self._torn: ModelsAggregated | None = None
        self._metrics: dict[str, float] = {}
        self._agreements = 0
        self._left: dict[PeerId, str] = {}
        self._ever: set[PeerId] = set()
        """Whose training is in the model, of this round or an earlier one."""
        self._history = History()
        ctx.on_leave(self._left.__setitem__)
        self._held = self._restore(ctx.restored)
        self.workflow = Workflow(
            ctx.me,
            Plan(
                algorithm.rounds,
                algorithm.train_set,
                algorithm.train_set_by,
                algorithm.max_samples,
                algorithm.crashes,
            ),
            ctx.seed,
            ctx.quorum,
            ctx.members,
            ctx.initiator,
        )

    async def run(self) -> Message:
        """To the end of the last round."""
        self._check_graph()
        self._trainer.check(self._model, self._state, self._own)
        await self._evaluate()
        steps: Mapping[State, Callable[[], Awaitable[Event]]] = {
            State.SYNC: self._sync,
            State.CATCH_UP: self._catch_up,
            State.TRAIN: self._train,
            State.OFFER: self._offer_training,
            State.SPREAD: self._spread,
        }
        while self.workflow.state is not State.FINISHED:
            self.workflow.proceed(await steps[self.workflow.state]())
        self._trainer.load(self._model)
        self._ctx.contributed(self._ever)
        return self._history.value(self._ctx.members, self._left, self.workflow, self._model)

    # ---- the states --------------------------------------------------------------------------

    async def _sync(self) -> Event:
        flow = self.workflow
        claim: RunMessage = self._held if self._torn is None else self._torn
        statement = [claim, Metrics(self._held.round, dict(self._metrics))]
        if flow.plan.train_set_by == "vote" and 0 < flow.plan.train_set < len(flow.members):
            statement.append(self._ballot())
        members, ahead = flow.members, await self._train_ahead()
        if ahead is not None:
            statement.append(ahead.offer)
        along = Along(partial(self._new_spread, ahead, members, self._held.round), self._given(ahead))
        said = await self._agree(statement, along, flow.foreseen_ahead)
        event = flow.conclude_sync(said)
        if event in (Event.READY, Event.DONE, Event.OFFERED):
            await self._close_round()
        if ahead is not None:
            self._trainer.went_ahead(in_vain=event is not Event.OFFERED)
        if event is Event.OFFERED:
            self._training, self._ahead = ahead, None
            self._along = along if flow.members == members else None
        return event

    async def _catch_up(self) -> Event:
        flow, target = self.workflow, self.workflow.target
        if target is None:
            raise InvalidMessage("nobody said what its model looks like")
        layout = self._shapes.plus(Layout.read(target.state_shapes, self._largest_state))
        copy = CopySpread(
            self._ctx.me,
            flow.holders,
            flow.behind,
            flow.attempt,
            layout,
            [*self._model, *self._state],
            target.round,
            self._algorithm.chunk_bytes,
        )
        await self._exchange_all(copy)
        if self._ctx.me in flow.behind and copy.complete:
            arrays = copy.arrays()
            model, state = arrays[: len(self._model)], arrays[len(self._model) :]
            if digest(model, state) == target.digest:
                self._model, self._state, self._held, self._torn = model, state, target, None
                await self._evaluate()
        return Event.COPIED

    async def _train(self) -> Event:
        flow = self.workflow
        self._training, self._ahead = self._ahead, None
        if not flow.trains:
            self._training = None
        elif self._training is None or not self._is_of(self._training, flow.round, flow.digest):
            self._training = await self._trained(flow.round, flow.digest, self._own)
        return Event.TRAINED

    async def _offer_training(self) -> Event:
        flow, members, training = self.workflow, self.workflow.members, self._training
        offer = training.offer if training is not None else ModelTrained(flow.round, 0, reason=NOT_CHOSEN)
        along = Along(partial(self._new_spread, training, members, flow.round), self._given(training))
        event = flow.conclude_offers(await self._agree([offer], along, flow.foreseen))
        # The model is cut into as many parts as there are members.
        self._along = along if flow.members == members else None
        if event is Event.NOTHING:
            self._hold(self._model, self._state, [], flow.left_out)
        return event

    async def _spread(self) -> Event:
        flow = self.workflow
        flow.begin_spread()
        offers: Offers = (flow.weights, flow.extras)
        along, self._along = self._along, None
        if along is None:
            spread, following = self._new_spread(self._training, flow.members, flow.round, offers), 0
        else:
            spread, following = along.agreed(offers)
        await self._exchange_all(spread, following)
        if not spread.complete:
            self._torn = ModelsAggregated(flow.round, dict(spread.refused))
            return Event.SPREAD
        found = self._aggregator.aggregate(self._model, self._contributions(spread), self._state)
        left_out = {**flow.left_out, **{peer: why[:MAX_TEXT_CHARS] for peer, why in found.left_out.items()}}
        contributors = [peer for peer in flow.weights if peer not in found.left_out]
        self._hold(list(found.model), list(found.state), contributors, left_out)
        if self._training is not None:  # a large model is held no longer than it has to be
            self._training = replace(self._training, arrays=[])
        del spread, along, found
        await self._evaluate()
        return Event.SPREAD

    # ---- what they are made of -----------------------------------------------------------------

    @property
    def _largest_state(self) -> int:
        """Bytes of what may go with a model: an aggregator's state, or the extras of a training."""
        return MAX_STATE_FACTOR * self._shapes.nbytes + 4096

    async def _train_ahead(self) -> Training | None:
        """What this member offers of the next round already, in case all hold the model that it holds."""
        flow, held, trainer = self.workflow, self._held, self._trainer
        if self._torn is not None or not flow.opened or held.round >= flow.plan.rounds:
            return None
        if self._ahead is not None and self._is_of(self._ahead, held.round, held.digest):
            return self._ahead
        if not trainer.may_go_ahead or not flow.foresees_training(held.round):
            return None
        own = self._own
        if self._training is not None and isinstance(held, ModelsReady):
            own = self._training.own if self._ctx.me in names(held.contributors) else own
        self._ahead = await self._trained(held.round, held.digest, own)
        return self._ahead

    async def _trained(self, round: int, digest: str, own: Sequence[Array]) -> Training:
        self._ctx.report(stage=str(State.TRAIN))
        return await self._trainer.train(round, digest, self._model, self._state, own)

    @staticmethod
    def _is_of(training: Training, round: int, digest: str) -> bool:
        return (training.round, training.digest) == (round, digest)

    def _given(self, training: Training | None) -> Offers | None:
        """What this member knows of the offers by itself."""
        if training is None or not training.arrays:
            return None
        return {self._ctx.me: training.offer.num_samples}, training.offer.extras

    def _new_spread(
        self, training: Training | None, members: Sequence[PeerId], number: int, offers: Offers
    ) -> MeanSpread | WholeSpread:
        weights, extras = offers
        arrays, chunk, me = len(self._shapes.specs), self._algorithm.chunk_bytes, self._ctx.me
        layout = self._shapes.plus(Layout.read(extras, self._largest_state))
        mine = training.arrays if training is not None and me in weights else None
        if self._aggregator.mean and not goes_whole(layout, len(members), chunk):
            return MeanSpread(me, members, weights, layout, arrays, mine, number, chunk)
        return WholeSpread(me, members, weights, layout, mine, number, chunk)

    async def _agree(
        self,
        statement: Sequence[RunMessage],
        along: Along,
        foreseen: Callable[[Statements], Offers | None],
    ) -> dict[PeerId, tuple[RunMessage, ...]]:
        """What all said, while something else goes along."""
        flow = self.workflow
        self._agreements += 1
        label = f"{flow.state} {self._agreements}"
        agreement = Agreement(self._ctx.me, self._ctx.members, flow.crashes, statement, label)
        for number in range(agreement.exchanges):
            answers = await self._exchange(together(agreement, along, number))
            agreement.take(answers)
            along.take(agreement.beside(answers), lambda: foreseen(agreement.statements()))
        return agreement.statements()

    async def _exchange_all(self, spread: Spread, first: int = 0) -> None:
        for number in range(first, spread.exchanges):
            spread.take(number, await self._exchange(partial(spread.message, number)))

    async def _exchange(self, message: Message | Callable[[PeerId], Message]) -> dict[PeerId, Message]:
        """One exchange with all. Of two members whose link is cut for good the higher one leaves."""
        # One tag for all: a member that has lost its way must not stop those at the right exchange.
        answers = await self._ctx.exchange(message, TAG, lenient=True)
        near = self._ctx.neighbors
        for peer in self.workflow.members:
            if peer not in near and peer not in self._left and peer < self._ctx.me:
                raise NotConnected(
                    f"there is no link to {peer}, and in learning every member talks to every other",
                    hint="see fedctl doctor; when both reach a relay, they reach each other",
                )
        return answers

    async def _close_round(self) -> None:
        """All hold the same model: note it, keep it, show it."""
        record = self.workflow.record
        if record is None:
            raise InvalidMessage("a round was closed without a record")
        if self._torn is not None or record.round != self._held.round:
            self._torn = None
            self._held = self._claim(record.round, record.digest, [], dict(record.left_out))
        if self._ctx.me in record.contributors and self._training is not None:
            self._own = self._training.own
        self._ever.update(record.contributors, record.earlier)
        self._history.add(record)
        if self._is_kept(record.round):
            await self._ctx.checkpoint(self._checkpoint())
        shown: dict[str, Any] = {"learning_round": record.round, "trainers": len(record.contributors)}
        shown.update(self._history.latest())
        self._ctx.report(**shown)

    async def _evaluate(self) -> None:
        self._metrics = await self._trainer.evaluate(self._model)

    def _hold(
        self,
        model: list[Array],
        state: list[Array],
        contributors: list[PeerId],
        left_out: Mapping[PeerId, str],
    ) -> None:
        """This member has the model of the round under way."""
        if Layout.of(model) != self._shapes:
            raise InvalidParameter(f"{self._aggregator.name} returned a model of other shapes")
        self._model, self._state, self._torn = model, state, None
        self._held = self._claim(self.workflow.round + 1, digest(model, state), contributors, dict(left_out))

    def _claim(
        self, round: int, checksum: str, contributors: list[PeerId], left_out: dict[PeerId, str]
    ) -> ModelInitialized:
        state = Layout.of(self._state).text
        if round == 0:
            return ModelInitialized(0, checksum, self._shapes.text, state)
        earlier = sorted(self._ever.difference(contributors))
        return ModelsReady(
            round, checksum, self._shapes.text, state, [*contributors], dict(left_out), [*earlier]
        )

    def _contributions(self, spread: MeanSpread | WholeSpread) -> list[Contribution]:
        weights, arrays = self.workflow.weights, len(self._model)
        if isinstance(spread, MeanSpread):
            mean = spread.arrays()
        elif self._aggregator.mean:
            mean = mean_of_whole(spread.contributions(), weights, arrays)
        else:
            return [
                Contribution(peer, given[:arrays], weights[peer], given[arrays:])
                for peer, given in spread.contributions().items()
            ]
        return [Contribution("", mean[:arrays], sum(weights.values()), mean[arrays:])]

    def _ballot(self) -> VoteTrainSet:
        """P2PFL's: as many candidates as there will be trainers, at random, with random weights."""
        flow = self.workflow
        rng = self._ctx.rng(f"vote/{self._held.round}")
        drawn = rng.permutation(len(flow.members))[: flow.plan.train_set]
        weights = rng.integers(0, 1000, len(drawn))
        votes: dict[str, Message] = {
            flow.members[i]: int(w) // (place + 1)
            for place, (i, w) in enumerate(zip(drawn, weights, strict=True))
        }
        return VoteTrainSet(self._held.round, votes)

    # ---- before the first round ----------------------------------------------------------------

    def _check_graph(self) -> None:
        missing = len(self._ctx.members) - 1 - len(self._ctx.neighbors)
        if missing:
            raise InvalidParameter(
                f"{self._ctx.me} has no edge to {missing} of the {len(self._ctx.members)} members",
                hint="learning runs on the complete graph: --topology complete",
                field="topology",
            )

    # ---- restarts ------------------------------------------------------------------------------

    def _is_kept(self, round: int) -> bool:
        every = self._algorithm.keep
        if every == 0:
            size = sum(array.nbytes for array in (*self._model, *self._state, *self._own))
            every = 1 if size <= KEPT_ROUNDS_BYTES else 10
        return every > 0 and round > 0 and round % every == 0

    def _checkpoint(self) -> Message:
        return {
            "held": self._held.to_wire(),
            "model": list(self._model),
            "state": list(self._state),
            "own": list(self._own),
            "history": self._history.kept(),
        }

    def _restore(self, kept: Any) -> ModelInitialized:
        """Go on with what was kept, if it fits; what is held."""
        first = self._claim(0, digest(self._model, self._state), [], {})
        if kept is None:
            return first
        model = [np.array(array) for array in kept["model"]]
        if Layout.of(model) != self._shapes:
            return first  # the device's owner has configured another model since
        self._model = model
        self._state = [np.array(array) for array in kept["state"]]
        self._own = [np.array(array) for array in kept["own"]]
        self._history = History.restored(kept["history"])
        claim = dict(kept["held"])
        self._ever = {*claim.get("contributors", []), *claim.get("earlier", [])}
        return self._claim(
            claim["round"], claim["digest"], claim.get("contributors", []), claim.get("left_out", {})
        )


def options_of(text: str) -> dict[str, Message]:
    """An aggregator's options from `f=1,beta=0.2`. Raises InvalidParameter on words without `=`."""
    found: dict[str, Message] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise InvalidParameter(
                f"{word!r:.80} is no option", hint="write options=name=value,name=value", field="options"
            )
        found[name.strip()] = value.strip()
    return found
