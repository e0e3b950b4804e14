"""Plugins that fail to import, raise, crash or never return hurt their own run on their own node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from federation.daemons import GUARD_S, Federation, eventually, federation, result_of

CONFIG = """
[policy]
algorithms = ["consensus", "raises", "hangs", "crashes", "hoards"]

[limits]
stall_timeout_s = 3.0
"""


@pytest.fixture(scope="module")
def fed(rogue_python: str) -> Iterator[Federation]:
    with federation(3, python=rogue_python, configs=[CONFIG] * 3) as fed:
        fed.set_inputs([0, 0, 1])
        yield fed


def everybody_is_well(fed: Federation) -> None:
    assert set(fed[0].states().values()) == {"alive"}
    result = fed[2].ctl("run", "consensus", "--input", "x").ok()
    assert result["value"] == pytest.approx(1 / 3)


def test_what_failed_to_import_is_listed_with_the_reason(fed: Federation) -> None:
    plugins = {p["name"]: p for p in fed[0].ctl("plugins").ok()}
    assert "a_module_that_nobody_has" in plugins["rogue-import"]["error"]
    assert "SystemExit" in plugins["rogue-exit"]["error"] or "exit" in plugins["rogue-exit"]["error"]
    assert not plugins["rogue"].get("error")
    assert not plugins["consensus"].get("error")


@pytest.mark.parametrize(
    ("algorithm", "parameters", "said"),
    [
        ("raises", [], "the sensor is on fire"),
        ("hangs", [], "stall"),
        ("crashes", ["how=exit"], "ended"),
        ("crashes", ["how=segfault"], "SIGSEGV"),
        ("hoards", [], "Cannot allocate memory"),
    ],
)
def test_the_others_finish_and_name_the_reason(
    fed: Federation, algorithm: str, parameters: list[str], said: str
) -> None:
    result = fed[0].ctl("run", algorithm, *parameters, "--input", "x").ok()
    bad = fed[2].peer_id()
    assert [d["peer_id"] for d in result["dropped"]] == [bad]
    assert said in result["dropped"][0]["reason"]
    assert result["value"] == 1
    own = result_of(fed[2], result["run_id"])
    assert own["state"] == "failed"
    assert said in str(own["error"])
    everybody_is_well(fed)


def test_another_run_goes_on_beside_a_hanging_one(fed: Federation) -> None:
    hanging = fed[0].ctl("run", "hangs", "--input", "x", "--detach").ok()["run_id"]
    everybody_is_well(fed)
    eventually(lambda: result_of(fed[1], hanging)["state"] == "finished", GUARD_S, "the hanging run ends")


def test_a_strangers_algorithm_must_be_listed(rogue_python: str) -> None:
    with federation(2, python=rogue_python) as fed:
        fed.set_inputs([0, 0])
        reply = fed[0].ctl("run", "raises", "--input", "x")
        assert reply.code in (1, 4)
        assert "policy" in reply.err
