"""How a run stands on this node, as scripts see it: progress, and the result once it ended."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any

from fedd.api.errors import FeddError
from fedd.api.types import PeerId
from fedd.core.codec import ArrayView, decode
from fedd.core.dataclass import dataclass
from fedd.core.history import History

if TYPE_CHECKING:
    from fedd.core.manifest import Manifest
    from fedd.core.pieces import Payload

Metric = bool | int | float | str | dict[str, bool | int | float]

MAX_LISTED_ELEMENTS = 1000
"""Larger arrays are named by shape, dtype and hash: they belong into a file, not into a terminal."""

MAX_LISTED_CHARS = 65_536
"""Longer texts are named by length and hash: hundreds of results are kept, and each may be shown."""

MAX_METRICS = 64
MAX_METRIC_CHARS = 256
MAX_METRIC_KEYS = 256
"""What a worker reports is shown in a live table; a worker that reports more is cut, not believed. A metric
with a number for each member has as many keys as a run has members."""


@dataclass(frozen=True)
class Ending:
    """How this node's part ended: `state` is finished, stopped or failed (then with code, detail, hint)."""

    state: str
    code: str = ""
    detail: str = ""
    hint: str = ""
    value: Any = None
    contributors: tuple[PeerId, ...] = ()
    residual: float | None = None
    agreed: bool = True
    large_value: bytes = b""
    """The value as it was encoded, when `value` names parts of it by their hashes; else empty."""


MAX_WARNINGS = 8
"""Of one run that become events: an algorithm that warns in every round fills no log."""


@dataclass
class Story:
    """What happened in a run so far, as far as this node knows."""

    manifest: Manifest
    me: PeerId
    started_at: float
    """Monotonic."""
    started_unix_s: float = 0.0
    """For people to read; decides nothing."""
    dropped: dict[PeerId, tuple[int, str]] = field(default_factory=dict)
    joined: dict[PeerId, tuple[int, int]] = field(default_factory=dict)
    """Who came, or came back, with a later epoch: its number, and the round in which it began."""
    metrics: dict[str, Metric] = field(default_factory=dict)
    history: History = field(default_factory=History)
    rounds: int = 0
    received: dict[PeerId, int] = field(default_factory=dict)
    sent: dict[PeerId, int] = field(default_factory=dict)
    """Bytes from and to each neighbour, on streams: the links' own encryption adds to them."""
    wall_s: float = 0.0
    ending: Ending | None = None
    ended_in: int | None = None
    """The epoch whose result counts, if that is not the last."""
    announced: bool = False
    """Whether its end was published."""
    changes: int = 0
    """Rises with whatever `watch` shows."""
    warnings: list[str] = field(default_factory=list)
    """What the metric `warning` said, each text once, MAX_WARNINGS at most."""

    @property
    def state(self) -> str:
        """running, finished, stopped or failed."""
        return "running" if self.ending is None else self.ending.state

    @property
    def residual(self) -> float | None:
        """The algorithm's own measure of how far it is, when it has one."""
        if self.ending is not None:
            return self.ending.residual
        reported = self.metrics.get("residual")
        return float(reported) if isinstance(reported, int | float) else None

    def present(self) -> list[PeerId]:
        """The members still in the run, sorted."""
        return [member for member in self.manifest.members if member not in self.dropped]

    def new_warning(self) -> str:
        """What the metric `warning` says, if it is told for the first time; else empty."""
        said = self.metrics.get("warning")
        if not isinstance(said, str) or said in self.warnings or len(self.warnings) >= MAX_WARNINGS:
            return ""
        self.warnings.append(said)
        return said

    def note_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Keep the newest of each name; what is no metric is passed over."""
        for name, value in metrics.items():
            metric = _metric(value)
            if metric is None or len(name) > MAX_METRIC_CHARS:
                continue
            if name in self.metrics or len(self.metrics) < MAX_METRICS:
                self.metrics[name] = metric

    def progress(self) -> dict[str, Any]:
        """One item of `watch`."""
        return {
            "kind": "progress",
            "run_id": self.manifest.run_id,
            "round": self.rounds,
            "residual": plain(self.residual),
            "members": self.present(),
            "dropped": self._dropped(),
            "joined": self._joined(),
            "epoch": self.manifest.epoch,
            "metrics": plain(self.metrics),
            **self._traffic(),
        }

    def _traffic(self) -> dict[str, Any]:
        each = [
            {"peer_id": peer, "bytes_in": self.received.get(peer, 0), "bytes_out": self.sent.get(peer, 0)}
            for peer in sorted({*self.received, *self.sent})
        ]
        return {
            "bytes_in": sum(self.received.values()),
            "bytes_out": sum(self.sent.values()),
            "traffic": each,
        }

    def summary(self, now: float) -> dict[str, Any]:
        """One item of `runs`."""
        return {
            "run_id": self.manifest.run_id,
            "algorithm": self.manifest.proposal.algorithm,
            "state": self.state,
            "round": self.rounds,
            "rounds": self.rounds,
            "members": len(self.manifest.members),
            "started_s_ago": round(now - self.started_at, 3),
        }

    def result(self) -> dict[str, Any]:
        """The whole story; `value` and its companions only once it ended."""
        proposal = self.manifest.proposal
        ending = self.ending or Ending("running")
        shown = {
            "run_id": self.manifest.run_id,
            "algorithm": proposal.algorithm,
            "state": self.state,
            "value": ending.value,
            "contributors": list(ending.contributors),
            "dropped": self._dropped(),
            "joined": self._joined(),
            "rounds": self.rounds,
            "residual": plain(self.residual),
            "epoch": self.ended_in or self.manifest.epoch,
            "degraded": ending.state == "finished" and len(ending.contributors) < proposal.quorum,
            "agreed": ending.state == "finished" and ending.agreed,
            **self._traffic(),
            "started_unix_s": round(self.started_unix_s, 3),
            "wall_s": round(self.wall_s, 6),
            "metrics": plain(self.metrics),
            "members": list(self.manifest.members),
            "initiator": proposal.initiator,
            "declined": [{"peer_id": peer, "reason": reason} for peer, reason in self.manifest.declined],
            "parameters": dict(proposal.parameters),
            "input": proposal.input or None,
            "topology": _shown_topology(self.manifest),
            "contract": proposal.contract,
            "seed": proposal.seed,
            "quorum": proposal.quorum,
        }
        if ending.state == "failed" or (ending.state == "stopped" and ending.detail):
            shown["error_code"] = ending.code
            shown["error"] = f"{ending.detail}; {ending.hint}" if ending.hint else ending.detail
        return shown

    def __post_init__(self) -> None:
        self._note_newcomers(self.manifest)

    def _note_newcomers(self, manifest: Manifest) -> None:
        for peer in manifest.newcomers:
            self.dropped.pop(peer, None)
            self.joined[peer] = (manifest.epoch, manifest.round)

    def enter(self, manifest: Manifest) -> None:
        """The run goes on in this epoch."""
        reasons = dict(manifest.lost)
        for peer in self.manifest.members:
            if peer not in manifest.members:
                reason = reasons.get(peer, "it is not in the next epoch")
                self.dropped.setdefault(peer, (manifest.round, reason))
        self._note_newcomers(manifest)
        self.manifest = manifest

    def _joined(self) -> list[dict[str, Any]]:
        return [
            {"peer_id": peer, "epoch": epoch, "round": number}
            for peer, (epoch, number) in sorted(self.joined.items())
        ]

    def _dropped(self) -> list[dict[str, Any]]:
        return [
            {"peer_id": peer, "round": number, "reason": reason}
            for peer, (number, reason) in sorted(self.dropped.items())
        ]


def _metric(value: Any) -> Metric | None:
    """A metric as it is kept, None for what is none."""
    if isinstance(value, str):
        return value[:MAX_METRIC_CHARS]
    if isinstance(value, dict):
        pairs = [pair for pair in value.items() if isinstance(pair[1], bool | int | float)]
        return {key[:MAX_METRIC_CHARS]: number for key, number in pairs[:MAX_METRIC_KEYS]}
    return value if isinstance(value, bool | int | float) else None


def read_value(payload: Payload, max_bytes: int) -> Any:
    """An encoded result as JSON can hold it. Raises InvalidMessage."""
    return plain(decode(payload, max_bytes=max_bytes))


def is_cut(value: Any) -> bool:
    """Whether `plain` named a part of this value by its hash."""
    if isinstance(value, dict):
        return "sha256" in value or any(map(is_cut, value.values()))
    return isinstance(value, list) and any(map(is_cut, value))


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: arrays as lists or by their hash, numbers that JSON lacks as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, ArrayView):
        if value.size <= MAX_LISTED_ELEMENTS:
            return plain(value.tolist())
        digest = hashlib.sha256(value.data).hexdigest()
        return {"shape": list(value.shape), "dtype": value.dtype, "sha256": digest}
    if isinstance(value, str) and len(value) > MAX_LISTED_CHARS:
        return {"chars": len(value), "sha256": hashlib.sha256(value.encode()).hexdigest()}
    if isinstance(value, bytes | memoryview):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def failure(error: FeddError) -> Ending:
    """An ending by this error."""
    return Ending("failed", error.code, error.detail, error.hint)


def _shown_topology(manifest: Manifest) -> str:
    """Its name fit for a line: edges that are written out are counted instead."""
    name = manifest.topology
    return f"edges:{len(manifest.graph.edges)}" if name.startswith("edges:") else name
