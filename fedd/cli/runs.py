"""Runs: start, follow, list, show, stop."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fedd.api.errors import InvalidParameter
from fedd.cli import predictions
from fedd.cli.edges import with_edges
from fedd.cli.parameters import parse_parameters
from fedd.cli.show import Output, count_bytes, escape, number, seconds, short, value_text
from fedd.control.client import Client, path_of

RUN_ID_CHARS = 12


def do_run(client: Client, options: Namespace, out: Output) -> int:
    """Say what is foreseen, start the run, follow it to its result unless it is to be detached."""
    body = run_request(options)
    if options.dry_run:
        predictions.show(out, predictions.ask(client, body))
        return 0
    if out.live:
        told = predictions.ask(client, body)
        predictions.announce(told)
        body.setdefault("seed", told["seed"])  # it decides random graphs
    try:
        started = client.request("POST", "/v1/runs", body)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("interrupted before the run began; its proposal is withdrawn") from interrupt
    run_id = started["run_id"]
    for item in started.get("declined", ()):
        sys.stderr.write(f"fedctl: {short(item['peer_id'])} declined: {escape(item['reason'])}\n")
    foreseen = started.get("prediction") or {}
    if not out.live:  # made before anybody was asked, in one step where nobody reads it in between
        predictions.warn(foreseen)
    if options.detach:
        if out.as_json:
            out.document({"run_id": run_id, **({"prediction": foreseen} if foreseen else {})})
        else:
            out.line(run_id)
        return 0
    try:
        return _finish(client, run_id, out, _follow(client, run_id, out), foreseen)
    except KeyboardInterrupt as interrupt:
        raise _left_running(run_id) from interrupt


def do_runs(client: Client, options: Namespace, out: Output) -> int:
    """Runs known here."""
    runs = client.request("GET", "/v1/runs")
    if out.as_json:
        out.document(runs)
        return 0
    out.table(
        ("RUN", "ALGORITHM", "STATE", "ROUND", "MEMBERS", "STARTED"),
        [
            (
                run["run_id"][:RUN_ID_CHARS],
                run["algorithm"],
                run["state"],
                number(run["round"]),
                str(_count(run["members"])),
                "-" if run["started_s_ago"] is None else f"{seconds(run['started_s_ago'])} ago",
            )
            for run in runs
        ],
    )
    return 0


def do_show(client: Client, options: Namespace, out: Output) -> int:
    """One run as it stands."""
    result = client.request("GET", path_of("runs", options.run))
    if out.as_json:
        out.document(result)
    else:
        show_result(out, result, names_of(client))
    return 0


def do_watch(client: Client, options: Namespace, out: Output) -> int:
    """Follow a run. Interrupting the watcher leaves the run alone."""
    items = client.stream("GET", path_of("runs", options.run, "watch"))
    if not out.as_json:
        return _finish(client, options.run, out, _shown(client, items, out))
    result: Mapping[str, Any] = {}
    for item in items:
        out.item(item)
        if item.get("kind") == "result":
            result = item
    out.item({"kind": "end"})
    return _verdict(options.run, result)


def do_enlist(client: Client, options: Namespace, out: Output) -> int:
    """Let another member into a run."""
    reply = client.request("POST", path_of("runs", options.run, "members"), {"peer": options.peer})
    if out.as_json:
        out.document(reply)
    else:
        out.line(f"{options.peer} is let into run {reply['run_id'][:RUN_ID_CHARS]}")
    return 0


def do_stop(client: Client, options: Namespace, out: Output) -> int:
    """Stop a run everywhere."""
    reply = client.request("POST", path_of("runs", options.run, "stop"), {})
    if out.as_json:
        out.document(reply)
    else:
        out.line(f"run {reply['run_id'][:RUN_ID_CHARS]} is {reply['state']}")
    return 0


def run_request(options: Namespace) -> dict[str, Any]:
    """The body of `POST /v1/runs`. Raises InvalidParameter on words without `=` and on empty lists."""
    parameters = parse_parameters(options.parameters)
    body: dict[str, Any] = {"algorithm": options.algorithm, "parameters": parameters}
    for name, value in (
        ("input", options.input),
        ("topology", options.topology and with_edges(options.topology)),
        ("contract", options.contract),
        ("seed", options.seed),
        ("pace_s", options.pace),
    ):
        if value is not None:
            body[name] = value
    if options.open:
        body["open"] = True
    if options.members is not None:
        body["members"] = [name.strip() for name in options.members.split(",") if name.strip()]
        if not body["members"]:
            raise InvalidParameter("--members names nobody", hint="write --members a,b,c", field="members")
    if options.quorum is not None:
        body["quorum"] = int(options.quorum) if options.quorum.isdecimal() else options.quorum
    return body


def names_of(client: Client) -> dict[str, str]:
    """{peer id: name} of everyone known."""
    return {member["peer_id"]: member["name"] for member in client.request("GET", "/v1/members")}


def show_result(
    out: Output, result: Mapping[str, Any], names: Mapping[str, str], *, with_reason: bool = True
) -> None:
    """Print a result, or what there is of a run that goes on, for people; the reason unless stderr has it."""
    out.line(f"{result['algorithm']} {result['state']} - run {result['run_id'][:RUN_ID_CHARS]}")
    rows = [("value", value_text(result.get("value")))]
    rows.append(("contributors", _peers(result.get("contributors") or (), names)))
    for dropped in result.get("dropped") or ():
        who = names.get(dropped["peer_id"]) or short(dropped["peer_id"])
        rows.append(("dropped", f"{who} in round {dropped['round']}: {dropped['reason']}"))
    for joined in result.get("joined") or ():
        who = names.get(joined["peer_id"]) or short(joined["peer_id"])
        rows.append(("joined", f"{who} in round {joined['round']}, epoch {joined['epoch']}"))
    epoch = result.get("epoch") or 1
    rows.append(("rounds", f"{number(result.get('rounds'))}{f' in {epoch} epochs' if epoch > 1 else ''}"))
    rows.append(("residual", number(result.get("residual"))))
    rows.append(("took", seconds(result.get("wall_s"))))
    rows.append(
        (
            "traffic",
            f"{count_bytes(result.get('bytes_in') or 0)} in, {count_bytes(result.get('bytes_out') or 0)} out",
        )
    )
    rows += [
        (name, _metric(value, names))
        for name, value in (result.get("metrics") or {}).items()
        if name != "residual"
    ]
    if result.get("degraded"):
        rows.append(("degraded", "yes: fewer members stayed than the quorum asks for"))
    if with_reason and (reason := failure(result)):
        rows.append(("reason", reason))
    out.pairs(rows)


def _metric(value: Any, names: Mapping[str, str]) -> str:
    """A metric for people; one of every member by the members' names."""
    if isinstance(value, Mapping):
        return ", ".join(f"{names.get(peer) or short(peer)} {number(one)}" for peer, one in value.items())
    return value if isinstance(value, str) else value_text(value, 200)


def failure(result: Mapping[str, Any]) -> str:
    """Why a run did not finish, empty when it says nothing."""
    return str(result.get("error") or "")


def _follow(client: Client, run_id: str, out: Output) -> Mapping[str, Any]:
    return _shown(client, client.stream("GET", path_of("runs", run_id, "watch")), out)


def _shown(client: Client, items: Iterator[dict[str, Any]], out: Output) -> Mapping[str, Any]:
    """Consume the stream, showing it live to a terminal; returns the result."""
    if out.live:
        from fedd.cli.live import follow  # here, because it loads rich

        names = names_of(client)
        return follow(items, names)
    return last_result(items)


def last_result(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The stream's item of kind `result` without its kind, empty when there is none."""
    result: dict[str, Any] = {}
    for item in items:
        if item.get("kind") == "result":
            result = {name: value for name, value in item.items() if name != "kind"}
    return result


def _finish(
    client: Client,
    run_id: str,
    out: Output,
    result: Mapping[str, Any],
    foreseen: Mapping[str, Any] | None = None,
) -> int:
    if not result:  # the watch ended without one: the daemon is shutting down, or the reader lagged
        result = client.request("GET", path_of("runs", run_id))
    if out.as_json:
        out.document({**result, "prediction": foreseen} if foreseen else result)
    else:
        show_result(out, result, names_of(client), with_reason=False)
    return _verdict(run_id, result)


def _verdict(run_id: str, result: Mapping[str, Any]) -> int:
    if result.get("state") == "finished":
        return 0
    state = result.get("state", "unknown")
    ended = "a member ended it with `fedctl stop`" if state == "stopped" else "no reason given"
    reason = failure(result) or ended
    sys.stderr.write(f"fedctl: run {run_id[:RUN_ID_CHARS]} {state}: {escape(reason)}\n")
    return 1


def _left_running(run_id: str) -> KeyboardInterrupt:
    run = run_id[:RUN_ID_CHARS]
    return KeyboardInterrupt(
        f"interrupted; run {run} goes on - `fedctl stop {run}` ends it, `fedctl watch {run}` follows it"
    )


def _peers(peer_ids: Iterable[str], names: Mapping[str, str]) -> str:
    shown = [names.get(peer_id) or short(peer_id) for peer_id in peer_ids]
    return f"{len(shown)}: {', '.join(sorted(shown))}" if shown else "-"


def _count(members: Any) -> int:
    return members if isinstance(members, int) else len(members)
