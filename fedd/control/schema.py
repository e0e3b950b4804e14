"""The control API as one table: every route with its fields, replies and errors.

Client and server share it, and the reference page is generated from `ROUTES` and `ERRORS`. The daemon refuses
unknown keys, clients ignore them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fedd.api.errors import FeddError
from fedd.control.federation_routes import FEDERATION_ROUTES
from fedd.control.route import Field as Field
from fedd.control.route import Route as Route

API_VERSION = 1


class ErrorKind(NamedTuple):
    """What a `FeddError.code` becomes: an HTTP status, fedctl's exit code and a title for people."""

    status: int
    exit_code: int
    title: str


ERRORS: dict[str, ErrorKind] = {
    "failed": ErrorKind(500, 1, "Failed"),
    "invalid": ErrorKind(400, 2, "Invalid request"),
    "denied": ErrorKind(403, 4, "Denied"),
    "not_found": ErrorKind(404, 5, "Not found"),
    "conflict": ErrorKind(409, 7, "Conflict"),
    "refused": ErrorKind(422, 1, "Refused"),
    "timeout": ErrorKind(504, 6, "Timed out"),
    "unhealthy": ErrorKind(503, 8, "Unhealthy"),
    "protocol": ErrorKind(502, 1, "A peer broke the protocol"),
    "not_connected": ErrorKind(502, 1, "Not connected"),
    "invalid_message": ErrorKind(500, 1, "Invalid message"),
    "quorum_lost": ErrorKind(500, 1, "Quorum lost"),
    "dropped": ErrorKind(500, 1, "Dropped"),
    "stopped": ErrorKind(500, 1, "Stopped"),
    "plugin_failed": ErrorKind(500, 1, "A plugin failed"),
}

EXIT_NO_DAEMON = 3
EXIT_INTERRUPTED = 130


def error_kind(code: str) -> ErrorKind:
    """The row of `code`; a code of a newer daemon counts as `failed`."""
    return ERRORS.get(code, ERRORS["failed"])


def error_document(error: FeddError, request_id: str) -> dict[str, Any]:
    """The body of an error reply: `{code, title, detail, hint, field, request_id}`."""
    return {
        "code": error.code,
        "title": error_kind(error.code).title,
        "detail": error.detail,
        "hint": error.hint,
        "field": error.field,
        "request_id": request_id,
    }


_RESULT = (
    "{run_id, algorithm, state, value, contributors[], dropped[{peer_id, round, reason}], "
    "joined[{peer_id, epoch, round}], rounds, residual, epoch, degraded, bytes_in, bytes_out, "
    "traffic[{peer_id, bytes_in, bytes_out}], wall_s, metrics{}}"
)
_PEER = Field("peer", "text", "A name or an unambiguous prefix of a peer id.", required=True)
_RUN_FIELDS = (
    Field("algorithm", "text", "Its name.", required=True),
    Field("parameters", "object", "Its parameters by name, typed or as text.", default={}),
    Field("input", "text", "The input that each member reads."),
    Field("topology", "text", "complete, ring, star, random-regular:K ...; by size when not given."),
    Field("members", "texts", "Names or prefixes of peer ids; everyone alive when not given."),
    Field("quorum", "quorum", "How many must take part and stay: a number, or a share like `60%`."),
    Field("contract", "text", "What a death means; the algorithm's own when not given."),
    Field("open", "flag", "Let in who comes to the federation later.", default=False),
    Field("seed", "integer", "Of everything random in the run."),
    Field("pace_s", "seconds", "No round is shorter.", high=3600),
)
_LEARNER = "{name, plugin, distribution, version, doc, abilities[], parameters[]}"
_AGGREGATOR = "{name, plugin, distribution, version, doc, mean, allowed, parameters[]}"
_COMMAND = (
    "{name, plugin, distribution, version, doc, protocol, audience, max_payload_bytes, timeout_s, "
    "event_text, allowed, parameters[{name, type, default, help, choices[]?, max_chars?, required?}]}"
)
_COMMAND_PARAMETERS = Field("parameters", "object", "Its parameters by name, typed or as text.", default={})

ROUTES: tuple[Route, ...] = (
    Route("version", "GET", "/v1/version", "Versions of the daemon and of this API.", "{version, api}"),
    Route(
        "status",
        "GET",
        "/v1/status",
        "This node.",
        "{peer_id, name, version, federation, federation_id, admin, root_key, waits_for, "
        "revoked{federation, reason}, addresses[], observed_addresses{address: peers}, uptime_s, "
        "rss_bytes, cpu_s, "
        "members{alive, suspect, dead, left}, runs_active, plugins[], "
        "confinement{landlock, seccomp, open[]}}",
    ),
    Route(
        "members",
        "GET",
        "/v1/members",
        "Everyone known, this node included.",
        "[{peer_id, name, state, addresses[], rtt_ms, last_heard_s, link, version, since_s, reason, admin}]",
    ),
    Route(
        "plugins",
        "GET",
        "/v1/plugins",
        "Plugins found here, those that failed to load with `error`.",
        "[{name, plugin, distribution, version, algorithms[], commands[], learners[], aggregators[], "
        "allowed, error?}]",
    ),
    Route(
        "algorithms",
        "GET",
        "/v1/algorithms",
        "Algorithms that can run here.",
        "[{name, plugin, distribution, version, doc, contract, joinable, topology, "
        "parameters[{name, type, default, help, choices[]}]}]",
    ),
    Route(
        "algorithm",
        "GET",
        "/v1/algorithms/{name}",
        "One algorithm.",
        "{name, plugin, distribution, version, doc, contract, joinable, topology, parameters[]}",
        errors=("not_found",),
    ),
    Route("learners", "GET", "/v1/learners", "Learners that inputs can have.", f"[{_LEARNER}]"),
    Route("learner", "GET", "/v1/learners/{name}", "One learner.", _LEARNER, errors=("not_found",)),
    Route("aggregators", "GET", "/v1/aggregators", "Aggregators that runs can name.", f"[{_AGGREGATOR}]"),
    Route(
        "aggregator", "GET", "/v1/aggregators/{name}", "One aggregator.", _AGGREGATOR, errors=("not_found",)
    ),
    Route(
        "commands",
        "GET",
        "/v1/commands",
        "Commands that can be sent to this node.",
        f"[{_COMMAND}]",
    ),
    Route("command", "GET", "/v1/commands/{name}", "One command.", _COMMAND, errors=("not_found",)),
    Route(
        "send",
        "POST",
        "/v1/commands/{name}/send",
        "Send a command to a member, or to this node; replies with its handler's answer.",
        "{command, peer_id, reply}",
        fields=(
            _PEER,
            _COMMAND_PARAMETERS,
            Field("deadline_s", "seconds", "When to give up.", default=45.0, low=0.1, high=50),
        ),
        errors=(
            "invalid",
            "denied",
            "not_found",
            "conflict",
            "timeout",
            "not_connected",
            "unhealthy",
            "plugin_failed",
        ),
        changes=True,
    ),
    Route(
        "broadcast",
        "POST",
        "/v1/commands/{name}/broadcast",
        "Send a command to every member, this node included; replies when all have it, or time is up.",
        "{delivered, missing[]}",
        fields=(
            _COMMAND_PARAMETERS,
            Field("deadline_s", "seconds", "How long to wait for others.", default=10.0, low=0.1, high=50),
            Field(
                "wait", "flag", "Ask the others to confirm it; else the reply counts this node.", default=True
            ),
        ),
        errors=("invalid", "denied", "not_found", "conflict", "unhealthy"),
        changes=True,
    ),
    Route(
        "inputs",
        "GET",
        "/v1/inputs",
        "Inputs of this device.",
        "[{name, kind, source, value?, path?, command?, learner?, options{}?, error?}]",
    ),
    Route(
        "set",
        "PUT",
        "/v1/inputs/{name}",
        "Make or replace a constant input.",
        "{input, value}",
        fields=(Field("value", "any", "A number, string or nested lists.", required=True),),
        errors=("invalid", "conflict"),
        changes=True,
    ),
    Route(
        "runs",
        "GET",
        "/v1/runs",
        "Runs that this node takes or took part in.",
        "[{run_id, algorithm, state, round, rounds, members, started_s_ago}]",
    ),
    Route("show", "GET", "/v1/runs/{run}", "One run.", _RESULT, errors=("not_found", "invalid")),
    Route(
        "watch",
        "GET",
        "/v1/runs/{run}/watch",
        "Follow a run to its result.",
        "{kind: progress, round, residual, members, dropped[], metrics{}} ... {kind: result, ...} "
        "{kind: end}",
        errors=("not_found", "invalid"),
        streams=True,
    ),
    Route(
        "history",
        "GET",
        "/v1/runs/{run}/history",
        "What every member of a run reported, round by round; asks those that are reachable.",
        "{run_id, nodes[{peer_id, name, rounds[], series{metric: [number or null]}}], "
        "missing[{peer_id, name, reason}]}",
        errors=("not_found", "invalid"),
    ),
    Route(
        "value",
        "GET",
        "/v1/runs/{run}/value",
        "A run's value in full: large arrays are {shape, dtype, base64}, in C order, little-endian.",
        "{run_id, value}",
        errors=("not_found", "invalid", "conflict"),
    ),
    Route(
        "events",
        "GET",
        "/v1/events",
        "What happens on this node, as it happens.",
        "{seq, kind, unix_s, peer_id?, run_id?, ...} ... {kind: lagged, missed} ... {kind: end}",
        query=(Field("since", "integer", "Begin after this number; 0 for all that is kept."),),
        errors=("invalid",),
        streams=True,
    ),
    *FEDERATION_ROUTES,
    Route(
        "links",
        "GET",
        "/v1/links",
        "Every link of this node; takes half a second, in which the rates are measured.",
        "[{peer_id, name, member, address, direction, age_s, rtt_ms, bytes_in, bytes_out, bytes_in_per_s, "
        "bytes_out_per_s, streams{protocol: number}, windows{receive_bytes, send_bytes, largest_bytes, "
        "extra_bytes, buffered_bytes, blocked_streams}, limits_reached{name: number}, agent, protocols[], "
        "observed_address, retired, relayed_by, circuits, circuit_bytes}]",
    ),
    Route(
        "limits",
        "GET",
        "/v1/limits",
        "Every bound of this daemon: how much of it is in use, and how often it was reached since the start.",
        "[{name, present, maximum, reached, help}]",
    ),
    Route(
        "connect",
        "POST",
        "/v1/links",
        "Link to a peer and keep the link.",
        "{peer_id}",
        fields=(Field("address", "text", "A multiaddr with /p2p/ID.", required=True),),
        errors=("invalid", "denied", "timeout", "not_connected"),
        changes=True,
    ),
    Route(
        "disconnect",
        "DELETE",
        "/v1/links/{peer}",
        "Drop a link, and keep it no longer.",
        "{peer_id}",
        errors=("invalid", "not_found", "not_connected"),
        changes=True,
    ),
    Route(
        "ping",
        "POST",
        "/v1/ping",
        "Round trips to a peer, which is reached through a relay if need be.",
        "{peer_id, rtt_ms[], relayed_by}",
        fields=(_PEER, Field("count", "integer", "How many.", default=3, low=1, high=1000)),
        errors=("invalid", "not_found", "not_connected", "timeout"),
    ),
    Route(
        "run",
        "POST",
        "/v1/runs",
        "Propose a run and start it; replies when the members have answered.",
        "{run_id, members[], declined[{peer_id, reason}], topology, seed, quorum, "
        "prediction{} as of /v1/predictions, empty when the algorithm foresees nothing}",
        fields=_RUN_FIELDS,
        errors=("invalid", "denied", "not_found", "refused", "conflict", "timeout"),
        changes=True,
    ),
    Route(
        "predict",
        "POST",
        "/v1/predictions",
        "What is foreseen of a run if all take part whom it would ask; nobody is asked, nothing starts.",
        "{algorithm, members[], topology, seed, quorum, prediction{edges, diameter, messages, "
        "spectral_gap, mixing_rounds, what the algorithm foresees, warning, error}}",
        fields=_RUN_FIELDS,
        errors=("invalid", "denied", "not_found", "conflict", "timeout"),
    ),
    Route(
        "enlist",
        "POST",
        "/v1/runs/{run}/members",
        "Ask another member to join a run that goes on, and let it in with the next epoch.",
        "{run_id, peer_id}",
        fields=(_PEER,),
        errors=("not_found", "invalid", "conflict", "refused", "not_connected", "timeout"),
        changes=True,
    ),
    Route(
        "stop",
        "POST",
        "/v1/runs/{run}/stop",
        "Stop a run on every member.",
        "{run_id, state}",
        errors=("not_found", "invalid", "conflict"),
        changes=True,
    ),
)
