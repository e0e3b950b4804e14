from __future__ import annotations

from typing import Any

from stores import MemoryStore

from fedd.api.errors import FeddError
from fedd.core.codec import ArrayView
from fedd.host.results import Results
from fedd.host.run_result import plain


def result(number: int, **more: Any) -> dict[str, Any]:
    return {"run_id": f"{number:040x}", "algorithm": "mean", "state": "finished", "rounds": number,
            "members": ["a", "b"], "started_unix_s": 1.0, "value": number, **more}  # fmt: skip


def test_the_newest_results_survive_a_restart() -> None:
    store = MemoryStore()
    store.files["runs/rubbish"] = b""
    results = Results(store, 3)
    for number in range(5):
        results.keep(result(number))
    assert results.ids() == [f"{number:040x}" for number in (2, 3, 4)]
    assert len(store.names("runs")) == 4
    again = Results(store, 2)
    assert again.ids() == results.ids()[1:]
    assert again.get(result(4)["run_id"]) == result(4)
    assert again.get(result(2)["run_id"]) is None
    again.keep(result(9))
    assert [summary["rounds"] for summary in again.summaries()] == [4, 9]
    summary = again.summaries()[0]
    assert summary["members"] == 2
    assert summary["started_s_ago"] > 0
    assert result(4)["run_id"] in again


def test_a_damaged_file_costs_its_result_only() -> None:
    store = MemoryStore()
    results = Results(store, 3)
    results.keep(result(1))
    results.keep(result(2))
    first, second = store.names("runs")
    store.files[first] = b"{"
    store.files[second] = b"[]"
    again = Results(store, 3)
    assert again.get(result(1)["run_id"]) is None
    assert again.summaries() == []


class Full(MemoryStore):
    full = True

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        if self.full:
            raise FeddError("no space")
        super().write(name, data, mode)


def test_a_full_disk_costs_no_result_until_the_end() -> None:
    store = Full()
    results = Results(store, 30)
    assert results.keep(result(1)) == "no space"
    assert results.keep(result(2)) == "no space"
    assert result(1)["run_id"] in results
    assert [summary["rounds"] for summary in results.summaries()] == [1, 2]
    assert results.get(result(2)["run_id"]) == result(2)
    store.full = False
    assert results.keep(result(3)) == ""
    assert [summary["rounds"] for summary in Results(store, 30).summaries()] == [1, 2, 3]
    assert results.ids() == Results(store, 30).ids()


def test_a_full_disk_has_a_bound_too() -> None:
    results = Results(Full(), 30)
    for number in range(20):
        results.keep(result(number))
    assert results.ids() == [result(number)["run_id"] for number in range(4, 20)]


def test_an_old_result_that_cannot_be_removed() -> None:
    class Stubborn(MemoryStore):
        def remove(self, name: str) -> None:
            raise FeddError("read-only")

    results = Results(Stubborn(), 1)
    results.keep(result(1))
    results.keep(result(2))
    assert results.ids() == [result(2)["run_id"]]


def test_values_as_json_holds_them() -> None:
    small = ArrayView("float64", (2, 1), b"".join([bytes(8), bytes(8)]))
    large = ArrayView("uint8", (1001,), bytes(1001))
    shown = plain({"a": small, "b": large, "c": b"x", "d": [float("nan"), (1, None)], "e": float("inf")})
    assert shown["a"] == [[0.0], [0.0]]
    assert shown["b"]["shape"] == [1001]
    assert shown["b"]["dtype"] == "uint8"
    assert len(shown["b"]["sha256"]) == 64
    assert shown["c"]["bytes"] == 1
    assert shown["d"] == ["nan", [1, None]]
    assert shown["e"] == "inf"
    assert plain("x" * 65_536) == "x" * 65_536
    assert plain("x" * 65_537)["chars"] == 65_537
