"""What members tell each other in a run of `learning`: typed, and named as P2PFL's commands are.

Each is registered as a command with the audience `run`, so that `fedctl commands` lists it with its fields;
it travels in exchanges of the run alone, where its source is proven and its round is checked. Arrays travel
as the arrays they are.

Source of the names: P2PFL 0.4 (p2pfl/communication/commands).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar, cast

from fedd.api import CommandContext, Denied, InvalidMessage, Message

MAX_TEXT_CHARS = 200
"""Of a reason: a sentence, shown in the result."""
MAX_SHAPES_CHARS = 128 * 1024
"""Of a model's description: 4,096 arrays of a few numbers each."""
MAX_METRICS = 32
"""Of one evaluation, as many as a learner may return."""
MAX_LABELS = 1024
"""Of one device's samples: ImageNet has 1,000."""
MAX_ROUND = 1 << 32

_M = TypeVar("_M", bound="RunMessage")


@dataclass(frozen=True)
class RunMessage:
    """What all messages of a run have in common: a name, and the round that they speak of."""

    name: ClassVar[str] = ""
    audience: ClassVar[str] = "run"

    round: int = field(metadata={"help": "how many rounds are behind the model that it speaks of"})

    async def handle(self, ctx: CommandContext) -> Message:
        """Refuse: it means something inside its run only."""
        raise Denied(f"{self.name} travels inside a run of learning alone", hint="fedctl run learning")

    def to_wire(self) -> dict[str, Message]:
        """As it travels."""
        return {"name": self.name, **{item.name: getattr(self, item.name) for item in fields(self)}}

    def check(self) -> None:
        """Raise ValueError unless every field is what it must be: it may come from anybody."""
        _whole("round", self.round, MAX_ROUND)


@dataclass(frozen=True)
class ModelInitialized(RunMessage):
    """Tells the others that this member has a model and can begin: what it looks like, and its digest."""

    name: ClassVar[str] = "model_initialized"

    digest: str = field(metadata={"help": "SHA-256 of model and aggregator state, in hexadecimal"})
    shapes: str = field(metadata={"help": "type and shape of each array of the model"})
    state_shapes: str = field(default="", metadata={"help": "the same of the aggregator's state"})

    def check(self) -> None:
        """Raise ValueError unless every field is what it must be."""
        super().check()
        _text("digest", self.digest, 64)
        _text("shapes", self.shapes, MAX_SHAPES_CHARS)
        _text("state_shapes", self.state_shapes, MAX_SHAPES_CHARS)


@dataclass(frozen=True)
class ModelsReady(ModelInitialized):
    """Tells the others that this member holds the model of a finished round, and whose training is in it."""

    name: ClassVar[str] = "models_ready"

    contributors: Message = field(default_factory=list, metadata={"help": "peer ids, sorted"})
    left_out: Message = field(default_factory=dict, metadata={"help": "{peer id: why}"})
    earlier: Message = field(
        default_factory=list, metadata={"help": "peer ids of further members that trained in earlier rounds"}
    )

    def check(self) -> None:
        """Raise ValueError unless every field is what it must be."""
        super().check()
        _peers("contributors", self.contributors)
        _peers("earlier", self.earlier)
        _reasons("left_out", self.left_out)


@dataclass(frozen=True)
class ModelsAggregated(RunMessage):
    """Tells the others that this member could not complete a round, and whose arrays it refuses.

    `round` counts the rounds behind the model that it still holds.
    """

    name: ClassVar[str] = "models_aggregated"

    refused: Message = field(default_factory=dict, metadata={"help": "{peer id: why}"})

    def check(self) -> None:
        """Raise ValueError unless every field is what it must be."""
        super().check()
        _reasons("refused", self.refused)


@dataclass(frozen=True)
class Metrics(RunMessage):
    """Tells everybody how this member's evaluation of the model went."""

    name: ClassVar[str] = "metrics"

    values: Message = field(default_factory=dict, metadata={"help": "{loss: number, accuracy: number, ...}"})

    def check(self) -> None:
        """Raise ValueError unless every field is what it must be."""
        super().check()
        _numbers("values", self.values, MAX_METRICS)


@dataclass(frozen=True)
class VoteTrainSet(RunMessage):
    """Casts this member's weighted votes for who trains in the next round."""

    name: ClassVar[str] = "vote_train_set"

    votes: Message = field(default_factory=dict, metadata={"help": "{peer id: weight}"})

    def check(self) -> None:
        """Raise ValueError unless every field is what it must be."""
        super().check()
        _numbers("votes", self.votes, MAX_LABELS)
        if not all(type(weight) is int and 0 <= weight <= 1 << 20 for _, weight in entries(self.votes)):
            raise ValueError("a vote's weight is no small whole number")


@dataclass(frozen=True)
class ModelTrained(RunMessage):
    """Offers this member's training to the round: on how many samples, or why there is none."""

    name: ClassVar[str] = "model_trained"

    num_samples: int = field(metadata={"help": "on which it trained, 0 when it did not"})
    extras: str = field(default="", metadata={"help": "type and shape of each further array it will send"})
    labels: Message = field(default_factory=dict, metadata={"help": "{label: number of samples}, if known"})
    reason: str = field(default="", metadata={"help": "why it offers nothing"})

    def check(self) -> None:
        """Raise ValueError unless every field is what it must be."""
        super().check()
        _whole("num_samples", self.num_samples, 1 << 62)
        _text("extras", self.extras, MAX_SHAPES_CHARS)
        _text("reason", self.reason, MAX_TEXT_CHARS)
        _numbers("labels", self.labels, MAX_LABELS)


@dataclass(frozen=True)
class Part(RunMessage):
    """A part of a model: pieces of its arrays, one after the other."""

    part: int = field(metadata={"help": "which part, from 0"})
    arrays: Message = field(metadata={"help": "the arrays' pieces, each of one dimension"})

    def check(self) -> None:
        """Raise ValueError unless every field is what it must be; the arrays are judged by their layout."""
        super().check()
        _whole("part", self.part, 1 << 32)
        if not isinstance(self.arrays, list):
            raise ValueError("arrays is no list")


@dataclass(frozen=True)
class InitModel(Part):
    """Gives a part of the first model to a member that has another one."""

    name: ClassVar[str] = "init_model"
    max_payload_bytes: ClassVar[int] = 16 * 1024 * 1024


@dataclass(frozen=True)
class PartialModel(Part):
    """Gives a part of what members have trained to the one who adds that part up."""

    name: ClassVar[str] = "partial_model"
    max_payload_bytes: ClassVar[int] = 16 * 1024 * 1024

    contributors: Message = field(metadata={"help": "peer ids of whose training it is"})
    num_samples: int = field(metadata={"help": "on which they trained"})


@dataclass(frozen=True)
class FullModel(Part):
    """Gives a part of the round's model to everybody, or to a member that lacks it."""

    name: ClassVar[str] = "full_model"
    max_payload_bytes: ClassVar[int] = 16 * 1024 * 1024

    contributors: Message = field(metadata={"help": "peer ids of whose training it is"})
    num_samples: int = field(metadata={"help": "on which they trained, all together"})


MESSAGES: Mapping[str, type[RunMessage]] = {
    cls.name: cls
    for cls in (
        ModelInitialized,
        ModelsReady,
        ModelsAggregated,
        Metrics,
        VoteTrainSet,
        ModelTrained,
        InitModel,
        PartialModel,
        FullModel,
    )
}


def read(value: Any) -> RunMessage:
    """The message that travelled as `value`. Raises InvalidMessage for anything else."""
    if not isinstance(value, dict) or value.get("name") not in MESSAGES:
        raise InvalidMessage("this is no message of a run of learning")
    given = dict(value)
    cls = MESSAGES[given.pop("name")]
    try:
        message = cls(**given)
        message.check()
    except (TypeError, ValueError) as error:
        raise InvalidMessage(f"a {cls.name} is malformed: {error}") from None
    return message


def read_all(value: Any) -> tuple[RunMessage, ...]:
    """A member's statement: a short list of messages. Raises InvalidMessage."""
    if not isinstance(value, list) or len(value) > len(MESSAGES):
        raise InvalidMessage("this is no statement of a member")
    return tuple(read(item) for item in value)


def find(statement: Sequence[RunMessage], kind: type[_M]) -> _M | None:
    """The first message of this kind, or a kind derived from it."""
    return next((message for message in statement if isinstance(message, kind)), None)


def entries(value: Message) -> list[tuple[str, Any]]:
    """The pairs of a dictionary that `check` has seen."""
    return list(cast("dict[str, Any]", value).items())


def names(value: Message) -> list[str]:
    """The texts of a list that `check` has seen."""
    return list(cast("list[str]", value))


def _whole(what: str, value: object, most: int) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{what} is no number from 0 to {most}")


def _text(what: str, value: object, most: int) -> None:
    if type(value) is not str or len(value) > most:
        raise ValueError(f"{what} is no text of up to {most} characters")


def _numbers(what: str, value: object, most: int) -> None:
    if not isinstance(value, dict) or len(value) > most:
        raise ValueError(f"{what} is no dictionary of up to {most} numbers")
    for key, number in value.items():
        if type(key) is not str or len(key) > MAX_TEXT_CHARS:
            raise ValueError(f"{what} has a key that is no short text")
        if type(number) not in (int, float):
            raise ValueError(f"{what} of {key:.40} is no number")


def _peers(what: str, value: object) -> None:
    if not isinstance(value, list) or not all(type(peer) is str for peer in value):
        raise ValueError(f"{what} is no list of peer ids")


def _reasons(what: str, value: object) -> None:
    if not isinstance(value, dict) or len(value) > MAX_LABELS:
        raise ValueError(f"{what} is no dictionary of reasons")
    for peer, reason in value.items():
        _text(what, peer, MAX_TEXT_CHARS)
        _text(what, reason, MAX_TEXT_CHARS)
