"""The regression equals the pooled fit of exactly the rows of its contributors, whoever dies when."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from fedd.api import InvalidMessage, Message, QuorumLost, TimedOut
from fedd.testing import Federation, Kill, NodeResult
from fedd_regression import Regression, fedd_register_algorithms
from fedd_regression.normal_equations import Moments


def diabetes() -> list[np.ndarray]:
    """The raw table, last column the target, split unevenly among five."""
    columns, target = load_diabetes(return_X_y=True, scaled=False)
    return np.split(np.column_stack([columns, target]), [5, 12, 60, 200])


def pooled(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, float, float]:
    """(coefficients, intercept, r2) by scikit-learn on standardised columns."""
    rows = np.concatenate(parts)
    columns, target = rows[:, :-1], rows[:, -1]
    center, scale = columns.mean(axis=0), columns.std(axis=0)
    model = LinearRegression().fit((columns - center) / scale, target)
    coefficients = model.coef_ / scale
    return (
        coefficients,
        float(model.intercept_ - center @ coefficients),
        float(model.score((columns - center) / scale, target)),
    )


def check(results: list[NodeResult], parts: Sequence[np.ndarray], federation: Federation) -> tuple[str, ...]:
    """All survivors hold the pooled fit of the contributors' rows to 1e-9; returns the contributors."""
    survivors = [result for result in results if not result.killed]
    assert all(result.error is None for result in survivors), [str(result.error) for result in survivors]
    values = [result.value for result in survivors if isinstance(result.value, dict)]
    first = values[0]
    assert isinstance(first["coefficients"], np.ndarray)
    for value in values:
        assert isinstance(value["coefficients"], np.ndarray)
        assert value["coefficients"].tobytes() == first["coefficients"].tobytes()
        assert {key: value[key] for key in value if key != "coefficients"} == {
            key: first[key] for key in first if key != "coefficients"
        }
    contributors = survivors[0].contributors
    assert first["contributors"] == list(contributors)
    used = [parts[federation.peer_ids.index(peer)] for peer in contributors]
    coefficients, intercept, r2 = pooled(used)
    largest = np.abs(coefficients).max()
    assert np.abs(first["coefficients"] - coefficients).max() <= 1e-9 * largest
    assert first["intercept"] == pytest.approx(intercept, rel=1e-9)
    assert first["r2"] == pytest.approx(r2, abs=1e-9)
    assert first["rows"] == sum(len(part) for part in used)
    return contributors


@pytest.mark.parametrize("topology", ["ring", "complete"])
def test_the_diabetes_table_in_five_parts_equals_the_pooled_fit(topology: str) -> None:
    parts = diabetes()
    federation = Federation(5, topology=topology)
    results = federation.run(Regression(), list(parts))
    assert len(check(results, parts, federation)) == 5
    assert isinstance(results[0].value, dict)
    assert results[0].value["r2"] == pytest.approx(0.5177, abs=1e-4)
    assert "names" not in results[0].value


def test_a_death_in_every_round_of_every_stage() -> None:
    parts = diabetes()
    undisturbed = Federation(5, topology="complete").run(Regression(), list(parts))[0].rounds
    seen = set()
    for round in range(undisturbed):
        for node, reaches in ((4, "one"), (0, "all"), (3, "none")):
            kill = Kill(node, round, reaches)
            federation = Federation(5, topology="complete", kills=[kill], seed=round)
            seen.add(len(check(federation.run(Regression(), list(parts)), parts, federation)))
    assert seen == {4, 5}


@pytest.mark.parametrize("round", [3, 20, 45, 70, 100, 130, 160, 175])
def test_a_death_on_the_ring(round: int) -> None:
    parts = diabetes()
    federation = Federation(5, topology="ring", kills=[Kill(2, round, "one")])
    check(federation.run(Regression(), list(parts)), parts, federation)


def named(part: np.ndarray, order: Sequence[int]) -> Message:
    names = ["age", "mass", "sugar", "progress"]
    return {names[index]: part[:, [0, 2, 9, 10][index]].copy() for index in order}


def test_named_columns_in_any_order_and_a_chosen_target() -> None:
    parts = diabetes()[2:]
    inputs = [named(parts[0], [0, 1, 2, 3]), named(parts[1], [3, 2, 1, 0]), named(parts[2], [1, 3, 0, 2])]
    results = Federation(3).run(Regression(target="sugar"), inputs)
    value = results[2].value
    assert isinstance(value, dict)
    assert (value["names"], value["target"]) == (["age", "mass", "progress"], "sugar")
    coefficients, _, _ = pooled([part[:, [0, 2, 10, 9]] for part in parts])
    np.testing.assert_allclose(value["coefficients"], coefficients, rtol=1e-9)


def noise(rows: int, columns: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def error_of(inputs: Sequence[Message], algorithm: Regression | None = None) -> str:
    """What all nodes say alike."""
    results = Federation(len(inputs), topology="complete").run(algorithm or Regression(), list(inputs))
    said = {str(result.error) for result in results}
    assert len(said) == 1, said
    assert all(isinstance(result.error, InvalidMessage) for result in results), said
    return said.pop()


def test_collinear_columns_are_named() -> None:
    parts = [noise(10, seed=seed) for seed in range(3)]
    for part in parts:
        part[:, 2] = 3 * part[:, 0] + 7
    said = error_of(list(parts))
    assert "collinear" in said
    assert "column 1, column 3" in said
    assert "column 2" not in said


def test_a_constant_column_is_named() -> None:
    parts = [noise(10, seed=seed) for seed in range(3)]
    for part in parts:
        part[:, 1] = 1234.5678
    assert "constant over all members: column 2" in error_of(list(parts))


def test_a_column_that_is_constant_among_the_last_contributors_is_named() -> None:
    parts = [noise(10, seed=seed) for seed in range(3)]
    for part in parts[:2]:
        part[:, 1] = 5.0
    complete = Federation(3, topology="complete")
    rounds = complete.run(Regression(), list(parts))[0].rounds
    results = Federation(3, topology="complete", kills=[Kill(2, rounds - 4)]).run(Regression(), list(parts))
    for result in results[:2]:
        assert "constant" in str(result.error)
        assert "column 2" in str(result.error)


def test_too_few_rows_in_all() -> None:
    said = error_of([noise(1, seed=1), noise(1, seed=2), noise(1, seed=3)])
    assert "3 rows in all are too few for 3 coefficients" in said
    assert "4 are needed" in said


def test_just_enough_rows_fit_exactly_and_a_member_may_have_none() -> None:
    parts = [noise(3, seed=1), noise(1, seed=2), np.empty((0, 4))]
    federation = Federation(3)
    results = federation.run(Regression(), list(parts))
    assert isinstance(results[0].value, dict)
    assert results[0].value["r2"] == pytest.approx(1.0)
    assert results[0].value["rows"] == 4
    assert "no member has a row" in error_of([np.empty((0, 4))] * 2)


def test_who_has_other_columns_is_out_and_told() -> None:
    parts = [noise(9), noise(9), noise(9, columns=5)]
    results = Federation(3, topology="complete").run(Regression(), list(parts))
    for result in results[:2]:
        assert isinstance(result.value, dict)
        assert result.value["rows"] == 18
        ((peer, reason),) = [(dropped.peer_id, dropped.reason) for dropped in result.dropped]
        assert peer == "node-02"
        assert "bad message: its table has 5 columns without names, this node's 4 columns" in reason
    assert isinstance(results[2].error, QuorumLost)


def test_names_that_differ_are_told_with_both_tables() -> None:
    one = {"a": [1.0, 2.0], "y": [1.0, 2.0]}
    other = {"b": [1.0, 2.0], "y": [1.0, 2.0]}
    results = Federation(3, topology="complete").run(Regression(), [one, other, [[1.0, 2.0]]])
    kinds = ["2 columns (a; target y)", "2 columns (b; target y)", "2 columns without names"]
    for own, result in zip(kinds, results, strict=True):
        assert isinstance(result.error, QuorumLost)
        for theirs in kinds:
            assert (f"its table has {theirs}, this node's {own}" in str(result.error)) == (theirs != own)


@pytest.mark.parametrize(
    ("bad", "target", "said"),
    [
        (None, "", "no input"),
        (7.0, "", "no table"),
        ([1.0, 2.0], "", "no table"),
        ([[1.0], [2.0]], "", "the table has 1 column "),
        ([[1.0, 2.0], [3.0]], "", "differ in length"),
        ([["a", "b"]], "", "not numbers"),
        ([[1.0, 2.0], [3.0, math.nan]], "", "data row 2, column 2: nan"),
        ({"a": [1.0], "b": [math.inf]}, "", "data row 1, b: inf"),
        ({"a": [1.0], "b": [1.0, 2.0]}, "", "'b'"),
        ({"a": [1.0], "b": [[1.0]]}, "", "'b'"),
        ({}, "", "0 columns"),
        ({"a": [1.0], "b": [2.0]}, "c", "no column 'c'"),
        ([[1.0, 2.0]], "c", "no names"),
    ],
)
def test_a_bad_table_is_told_on_its_node(bad: Message, target: str, said: str) -> None:
    good: Message = {"a": [1.0, 2.0, 4.0], "b": [1.0, 3.0, 3.0], "c": [0.0, 1.0, 5.0]}
    results = Federation(3, quorum=1).run(Regression(target=target), [good, good, bad])
    assert isinstance(results[2].error, InvalidMessage)
    assert said in str(results[2].error)


def test_too_few_iterations_are_an_error_everywhere() -> None:
    results = Federation(5, topology="ring").run(Regression(iterations=6), list(diabetes()))
    for result in results:
        assert isinstance(result.error, TimedOut)
        assert "did not agree within 6 iterations" in str(result.error)


def test_no_message_holds_more_than_the_moments() -> None:
    rows = noise(50, columns=11)
    packed = Moments.of(rows).packed()
    assert packed.shape == (1 + 11 + 66,)
    back = Moments.unpacked(packed, 11)
    assert back.count == 50
    np.testing.assert_array_equal(back.products, rows.T @ rows)
    np.testing.assert_array_equal(back.sums, rows.sum(axis=0))


@pytest.mark.parametrize("bad", [{"tolerance": 0.0}, {"tolerance": 1.0}, {"iterations": 0}])
def test_parameters_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Regression(**bad)


def test_what_is_registered() -> None:
    assert [algorithm.name for algorithm in fedd_register_algorithms()] == ["regression"]
