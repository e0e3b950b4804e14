from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from host.worlds import document, parameter

from fedd.api.errors import InvalidParameter, NotFound, PluginFailed
from fedd.host.plugins import PluginRegistry
from fedd.host.policy import Policy


def plugin(
    name: str, *algorithms: str, distribution: str = "acme", error: str | None = None
) -> dict[str, Any]:
    parameters = [
        parameter("count", "int", 3),
        parameter("rate", "float", 0.5),
        parameter("fast", "bool", False),
        parameter("rule", "str", "mean", choices=["mean", "median"]),
        parameter("label", "str", ""),
    ]
    offered = [{"name": each, "doc": "Doc.", "parameters": parameters} for each in algorithms]
    return {"name": name, "value": "m", "distribution": distribution, "version": "1", "error": error,
            "algorithms": offered}  # fmt: skip


async def registry(*plugins: dict[str, Any], policy: Policy | None = None) -> PluginRegistry:
    async def inspector() -> bytes:
        return json.dumps({"format": 1, "plugins": plugins}).encode()

    made = PluginRegistry(policy, inspector)
    await made.load()
    return made


async def test_what_there_is() -> None:
    made = await registry(
        plugin("zeta", "vote"),
        plugin("core", "mean", distribution="fedd"),
        plugin("bad", error="ImportError: x"),
        policy=Policy(algorithms=("vote",)),
    )
    assert [info.name for info in made.algorithms()] == ["mean", "vote"]
    shown = {each.name: each.describe() for each in made.plugins()}
    assert list(shown) == ["bad", "core", "zeta"]
    assert shown["bad"]["error"] == "ImportError: x"
    assert not shown["bad"]["allowed"]
    assert shown["core"] == {
        "name": "core", "distribution": "fedd", "version": "1", "algorithms": ["mean"], "commands": [],
        "learners": [], "aggregators": [], "allowed": True,
    }  # fmt: skip
    assert shown["zeta"]["allowed"]
    described = made.algorithm("vote").describe()
    assert (described["plugin"], described["doc"]) == ("zeta", "Doc.")
    assert described["parameters"][0] == {"name": "count", "type": "int", "default": 3, "help": "the count"}
    assert described["parameters"][3]["choices"] == ["mean", "median"]


async def test_no_stranger_takes_a_bundled_name() -> None:
    made = await registry(plugin("aaa", "mean"), plugin("core", "mean", distribution="fedd"))
    assert made.algorithm("mean").plugin == "core"
    (thief, _) = made.plugins()
    assert "already offered by the plugin 'core'" in (thief.error or "")
    assert thief.algorithms == ()


def offering(name: str, distribution: str = "acme", **kinds: list[dict[str, Any]]) -> dict[str, Any]:
    return {**plugin(name, distribution=distribution), **kinds}


STEP = {
    "name": "net",
    "doc": "Learns.",
    "parameters": [parameter("step", "float", 0.1)],
    "abilities": ["step"],
}
MEAN = {"name": "mean-of-all", "doc": "", "parameters": [], "mean": True}


async def test_learners_and_aggregators() -> None:
    made = await registry(
        offering("core", "fedd", learners=[STEP], aggregators=[MEAN]),
        offering("more", learners=[{**STEP, "name": "deep"}]),
        offering("odd", aggregators=[{**MEAN, "name": "odd-mean", "mean": False}]),
        offering("thief", learners=[STEP], aggregators=[MEAN]),
        policy=Policy(aggregators=("thief",)),
    )
    assert [info.name for info in made.learners()] == ["deep", "net"]
    assert made.learner("net").describe() == {
        "name": "net", "plugin": "core", "distribution": "fedd", "version": "1", "doc": "Learns.",
        "abilities": ["step"],
        "parameters": [{"name": "step", "type": "float", "default": 0.1, "help": "the step"}],
    }  # fmt: skip
    assert [(info.name, info.mean, info.allowed) for info in made.aggregators()] == [
        ("mean-of-all", True, True), ("odd-mean", False, False)
    ]  # fmt: skip
    assert made.aggregator("odd-mean").describe()["allowed"] is False
    assert made.allowed_aggregators() == {"mean-of-all": "core"}
    shown = {each.name: each for each in made.plugins()}
    assert shown["core"].describe()["learners"] == ["net"]
    assert shown["core"].describe()["aggregators"] == ["mean-of-all"]
    assert shown["more"].allowed  # the owner's own configuration is what names a learner
    assert not shown["odd"].allowed
    assert "its learner 'net' is already offered by the plugin 'core'" in (shown["thief"].error or "")
    with pytest.raises(NotFound, match="no learner 'nett'") as caught:
        made.learner("nett")
    assert caught.value.hint.startswith("did you mean 'net'?")
    with pytest.raises(NotFound, match="no aggregator"):
        made.aggregator("krum")


async def test_options_of_a_learner() -> None:
    made = await registry(offering("core", "fedd", learners=[STEP]))
    assert made.check_options("net", {}) == {}
    assert made.check_options("net", {"step": 1}) == {"step": 1.0}
    with pytest.raises(InvalidParameter, match="net has no option 'stpe'") as caught:
        made.check_options("net", {"stpe": 1})
    assert (caught.value.field, caught.value.hint) == ("stpe", "did you mean 'step'?")
    with pytest.raises(InvalidParameter, match="not a number"):
        made.check_options("net", {"step": "wide"})


def test_a_strangers_aggregator_needs_the_owners_word() -> None:
    assert not Policy().allows_aggregator("odd-mean", "odd", "acme")
    assert Policy().allows_aggregator("odd-mean", "odd", "fedd")
    assert Policy(aggregators=("odd",)).allows_aggregator("odd-mean", "odd", "acme")
    assert Policy(aggregators=("odd-mean",)).allows_aggregator("odd-mean", "odd", "acme")


async def test_an_unknown_algorithm_names_the_nearest() -> None:
    made = await registry(plugin("core", "consensus", "max"), plugin("bad", error="x"))
    with pytest.raises(NotFound) as caught:
        made.algorithm("concensus")
    assert "did you mean 'consensus'?" in caught.value.hint
    assert "failed to load: bad" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        made.algorithm("zzz")
    assert "there are consensus, max" in caught.value.hint


async def test_parameters_are_typed() -> None:
    made = await registry(plugin("core", "mean"))
    assert made.check_parameters("mean", {}) == {
        "count": 3, "rate": 0.5, "fast": False, "rule": "mean", "label": ""
    }  # fmt: skip
    given = {"count": " 7 ", "rate": "1e-3", "fast": "Yes", "rule": "median", "label": "x y"}
    assert made.check_parameters("mean", given) == {
        "count": 7, "rate": 1e-3, "fast": True, "rule": "median", "label": "x y"
    }  # fmt: skip
    typed = {"count": 7, "rate": 2, "fast": True}
    checked = made.check_parameters("mean", typed)
    assert (checked["count"], checked["rate"], checked["fast"]) == (7, 2.0, True)
    assert isinstance(checked["rate"], float)


@pytest.mark.parametrize(
    ("key", "value"),
    [("count", "many"), ("count", "1.5"), ("count", 1.5), ("count", True), ("count", None),
     ("count", str(1 << 64)), ("rate", "fast"), ("rate", True), ("rate", [1]), ("fast", "maybe"),
     ("fast", 1), ("rule", "mode"), ("label", 3), ("conut", 1)],
)  # fmt: skip
async def test_what_does_not_fit_is_refused_by_name(key: str, value: Any) -> None:
    made = await registry(plugin("core", "mean"))
    with pytest.raises(InvalidParameter) as caught:
        made.check_parameters("mean", {key: value})
    assert caught.value.field == key
    assert key in caught.value.detail
    assert caught.value.hint


async def test_ready_waits_for_the_inspector() -> None:
    asked = trio.Event()

    async def inspector() -> bytes:
        await asked.wait()
        return document("mean")

    made = PluginRegistry(None, inspector)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.load)
        with trio.move_on_after(0.01) as waited:
            await made.ready()
        assert waited.cancelled_caught
        asked.set()
        await made.ready()
    assert made.algorithm("mean").name == "mean"


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b'{"format": 2, "plugins": []}', b'{"format": 1, "plugins": [{}]}']
)
async def test_a_malformed_answer_is_shown_as_a_failed_plugin(answer: bytes) -> None:
    async def inspector() -> bytes:
        return answer

    made = PluginRegistry(None, inspector)
    await made.load()
    await made.ready()
    assert "malformed" in (made.plugins()[0].error or "")
    with pytest.raises(NotFound, match="malformed"):
        made.algorithm("mean")


async def test_an_inspector_that_fails() -> None:
    async def inspector() -> bytes:
        raise PluginFailed("the inspector ended with status 1")

    made = PluginRegistry(None, inspector)
    await made.load()
    assert made.plugins()[0].error == "the inspector ended with status 1"


async def test_the_real_inspector_knows_the_bundled_plugins() -> None:
    made = PluginRegistry()
    with trio.fail_after(60):
        await made.load()
    assert made.confinement is not None
    consensus = made.algorithm("consensus")
    assert (consensus.distribution, consensus.plugin) == ("fedd", "consensus")
    assert {"iterations", "tolerance"} <= {field.name for field in consensus.parameters}


async def test_what_processes_of_plugins_are_told_to_give_up() -> None:
    policy = Policy(network=("weather",), writable=("/srv/models",))
    told = ("--hide", "/state", "--hide", "/keys", "--writable", "/srv/models")
    assert policy.walls(("/state", "/keys"), ("vote", "")) == told
    assert policy.walls(("/state", "/keys"), ("vote", "weather")) == (*told, "--network")
    assert Policy().walls((), ("weather",)) == ()


@pytest.mark.parametrize(("offers", "network"), [("commands", True), ("learners", False)])
async def test_the_process_of_all_commands_may_do_what_one_of_their_plugins_may(
    offers: str, network: bool
) -> None:
    offered = {
        "name": "rain", "version": "1.0.0", "audience": "members", "max_payload_bytes": 9, "timeout_s": 1,
    }  # fmt: skip
    weather = {**plugin("weather"), offers: [offered]}

    async def inspector() -> bytes:
        return json.dumps({"format": 1, "plugins": [weather]}).encode()

    made = PluginRegistry(Policy(network=("weather",)), inspector, hidden=("/state",))
    await made.load()
    assert made.command_walls() == ("--hide", "/state", *(["--network"] if network else []))


async def test_what_the_kernel_lacks_is_kept_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    said: dict[str, Any] = {"landlock": 0, "seccomp": True, "open": ["the daemon's files"]}

    async def inspector() -> bytes:
        return json.dumps({"format": 1, "confinement": said, "plugins": []}).encode()

    made = PluginRegistry(None, inspector)
    assert made.confinement is None
    for _ in range(2):
        await made.load()
    assert made.confinement == said
    assert [record.getMessage() for record in caplog.records] == [
        "plugins are not kept from the daemon's files: see fedctl status"
    ]
    said["open"] = []
    caplog.clear()
    await made.load()
    assert (made.confinement, caplog.records) == (said, [])
