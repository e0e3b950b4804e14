"""consensus, max and min: exact, uniform, whoever dies."""

from __future__ import annotations

import numpy as np
import pytest

from fedd.api import InvalidMessage, Message, QuorumLost
from fedd.testing import Federation, Kill, NodeResult
from fedd_consensus import AverageConsensus, Maximum, Minimum, fedd_register_algorithms


def agreed(results: list[NodeResult]) -> NodeResult:
    """One of the survivors, after looking whether all hold the same bits and contributors."""
    survivors = [result for result in results if not result.killed]
    assert all(result.error is None for result in survivors), [result.error for result in survivors]
    assert len({np.asarray(result.value).tobytes() for result in survivors}) == 1
    assert len({result.contributors for result in survivors}) == 1
    assert all(result.agreed for result in survivors)
    return survivors[0]


@pytest.mark.parametrize("topology", ["ring", "complete", "random-regular:4"])
@pytest.mark.parametrize("nodes", [1, 2, 5, 8])
def test_the_mean_is_exact_to_1e_12(topology: str, nodes: int) -> None:
    inputs: list[Message] = [20.5 + 0.7 * index for index in range(nodes)]
    result = agreed(Federation(nodes, topology=topology, loss=0.1).run(AverageConsensus(), inputs))
    assert isinstance(result.value, float)
    assert result.value == pytest.approx(20.5 + 0.35 * (nodes - 1), abs=1e-12)
    assert result.residual is not None
    assert result.residual <= 1e-12
    assert len(result.contributors) == nodes
    assert result.metrics["residual"] == result.residual


def test_arrays_of_any_shape_are_averaged_element_by_element() -> None:
    rng = np.random.default_rng(3)
    inputs: list[Message] = [rng.normal(size=(2, 3, 4)) for _ in range(4)]
    result = agreed(Federation(4).run(AverageConsensus(), inputs))
    assert isinstance(result.value, np.ndarray)
    np.testing.assert_allclose(result.value, np.mean(inputs, axis=0), rtol=0, atol=1e-12)


def test_integers_bools_and_nested_lists_are_numbers() -> None:
    result = agreed(Federation(2).run(AverageConsensus(), [[[1, 2], [3, 4]], [[True, 2], [3.0, 6]]]))
    assert np.asarray(result.value).tolist() == [[1, 2], [3, 5]]


def test_equal_inputs_and_zero_need_no_more_than_one_window() -> None:
    result = agreed(Federation(5, topology="ring").run(AverageConsensus(), [0.0, -0.0, 0, 0.0, 0.0]))
    assert result.value == 0.0
    assert result.rounds == 4
    assert result.residual == 0.0


def test_the_iteration_limit_ends_without_agreement_and_says_how_far() -> None:
    results = Federation(5, topology="ring").run(AverageConsensus(iterations=9), [1, 4, 9, 16, 25])
    for result in results:
        assert result.error is None
        assert not result.agreed
        assert result.rounds == 9
        assert result.residual is not None
        assert 1e-3 < result.residual < 1
        assert result.value == pytest.approx(11, abs=25 * result.residual)


def test_a_tolerance_of_nothing_means_that_many_iterations() -> None:
    equal = Federation(4, topology="complete").run(AverageConsensus(tolerance=0.0, iterations=50), [2.0] * 4)
    for result in equal:
        assert (result.rounds, result.agreed, result.value, result.residual) == (50, False, 2.0, 0.0)


@pytest.mark.parametrize(("algorithm", "extreme"), [(Maximum(), np.maximum), (Minimum(), np.minimum)])
@pytest.mark.parametrize("topology", ["ring", "complete"])
def test_the_extremes_whoever_dies(algorithm: Maximum | Minimum, extreme: np.ufunc, topology: str) -> None:
    inputs: list[Message] = [np.array([float(index), -float(index)]) for index in range(5)]
    for node in (0, 4):
        for round in range(5):
            for reaches in ("none", "one", "some", "all"):
                kill = Kill(node, round, reaches)
                federation = Federation(5, topology=topology, kills=[kill], seed=round)
                result = agreed(federation.run(algorithm, inputs))
                named = [inputs[federation.peer_ids.index(peer)] for peer in result.contributors]
                assert len(named) >= 4
                assert np.asarray(result.value).tolist() == extreme.reduce(named).tolist()


def test_a_dead_maximum_counts_only_if_it_is_named() -> None:
    heard = agreed(Federation(3, kills=[Kill(2, 1)]).run(Maximum(), [1, 2, 3]))
    assert (heard.value, len(heard.contributors)) == (3.0, 3)
    unheard = agreed(Federation(3, kills=[Kill(2, 0)]).run(Maximum(), [1, 2, 3]))
    assert (unheard.value, len(unheard.contributors)) == (2.0, 2)


@pytest.mark.parametrize("algorithm", [AverageConsensus(), Maximum(), Minimum()])
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (None, "no input"),
        ("warm", "no number"),
        ({"a": 1}, "no number"),
        ([1, [2, 3]], "ragged"),
        (float("nan"), "not finite"),
        ([1.0, float("inf")], "not finite"),
    ],
)
def test_a_bad_input_is_told_on_its_node_and_the_others_go_on(
    algorithm: AverageConsensus | Maximum, bad: Message, said: str
) -> None:
    results = Federation(4, topology="complete").run(algorithm, [bad, 1.0, 2.0, 3.0])
    assert isinstance(results[0].error, InvalidMessage)
    assert said in str(results[0].error)
    for result in results[1:]:
        assert result.error is None
        assert result.contributors == ("node-01", "node-02", "node-03")
        assert said in result.dropped[0].reason


@pytest.mark.parametrize("algorithm", [AverageConsensus(), Maximum()])
def test_who_has_another_shape_is_out_and_told_with_both_shapes(
    algorithm: AverageConsensus | Maximum,
) -> None:
    results = Federation(3).run(algorithm, [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0, 3.0]])
    for result in results[:2]:
        assert result.error is None
        assert np.asarray(result.value).tolist() == [1.0, 2.0]
        assert result.contributors == ("node-00", "node-01")
        ((peer, reason),) = [(dropped.peer_id, dropped.reason) for dropped in result.dropped]
        assert peer == "node-02"
        assert reason.startswith("bad message: ")
        assert "(2,)" in reason
        assert "(3,)" in reason
    assert isinstance(results[2].error, QuorumLost)
    assert "(2,)" in str(results[2].error)
    assert "(3,)" in str(results[2].error)


@pytest.mark.parametrize(
    "bad", [{"tolerance": -1.0}, {"tolerance": 1e-16}, {"tolerance": 2.0}, {"iterations": 0}]
)
def test_parameters_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        AverageConsensus(**bad)


def test_what_is_registered() -> None:
    assert [algorithm.name for algorithm in fedd_register_algorithms()] == ["consensus", "max", "min"]
