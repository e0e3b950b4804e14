"""Every method of averaging: how fast, how exact, how many bytes, and what a death does to its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from fedd.api import FeddError, InvalidMessage, InvalidParameter, Message, RunContext
from fedd.core.mixing import mixing_matrix
from fedd.core.topology import build
from fedd.testing import Federation, Kill, NodeResult
from fedd.worker.context import Context
from fedd_consensus import AverageConsensus
from fedd_consensus.choco import default_gamma
from fedd_consensus.codecs import find_codec
from fedd_consensus.countdown import needed_rounds
from fedd_consensus.pairwise import needed_questions

METHODS = ["lazy", "chebyshev", "push-sum", "choco", "pairwise"]


def consensus(method: str, **parameters: Any) -> AverageConsensus:
    return AverageConsensus(method=method, **parameters)


def values_of(nodes: int, size: int = 3, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=size) for _ in range(nodes)]


def error_of(results: Sequence[NodeResult], values: Sequence[np.ndarray]) -> float:
    """The largest distance of a survivor from the mean of the survivors."""
    survivors = [result for result in results if not result.killed]
    assert [result.error for result in survivors] == [None] * len(survivors)
    mean = np.mean([values[result.node] for result in survivors], axis=0)
    return max(float(np.abs(np.asarray(result.value) - mean).max()) for result in survivors)


# ---- every method ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("topology", ["ring", "complete", "star@uniform", "exponential@lazy"])
def test_everybody_ends_at_the_mean(method: str, topology: str) -> None:
    values = values_of(6)
    results = Federation(6, topology=topology).run(consensus(method, tolerance=1e-9), values)
    assert error_of(results, values) <= 2e-9
    assert all(result.metrics["rounds_predicted"] >= 1 for result in results)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("nodes", [1, 2])
def test_one_and_two_nodes(method: str, nodes: int) -> None:
    results = Federation(nodes).run(consensus(method), [1, 2][:nodes])
    assert [result.value for result in results] == pytest.approx([(1 + nodes) / 2] * nodes, abs=1e-12)
    assert all(isinstance(result.value, float) for result in results)


@pytest.mark.parametrize("method", METHODS)
def test_arrays_keep_their_shape(method: str) -> None:
    values = [np.full((2, 2), float(node)) for node in range(3)]
    result = Federation(3).run(consensus(method), values)[0]
    assert np.asarray(result.value) == pytest.approx(np.ones((2, 2)), abs=1e-11)


@pytest.mark.parametrize("method", METHODS)
def test_who_has_another_shape_is_out_and_that_is_told(method: str) -> None:
    values = [[1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    one, other, *rest = Federation(5, topology="ring").run(consensus(method), values)
    for result in (one, *rest):
        assert result.error is None
        assert np.asarray(result.value) == pytest.approx(np.array([1.0, 2.0]), abs=1e-9)
        assert "node-01" not in result.contributors
        ((peer, reason),) = [(dropped.peer_id, dropped.reason) for dropped in result.dropped]
        assert peer == "node-01"
        assert "shape" in reason
    assert isinstance(other.error, FeddError)


@pytest.mark.parametrize("method", [*(m for m in METHODS if m != "push-sum"), "metropolis"])
def test_a_directed_topology_is_refused_before_the_first_round(method: str) -> None:
    for result in Federation(4, topology="directed-ring").run(consensus(method), [1, 2, 3, 4]):
        assert isinstance(result.error, InvalidParameter)
        assert f"consensus method={method} needs edges that go both ways" in str(result.error)
        assert "push-sum" in result.error.hint
        assert result.rounds == 0


@pytest.mark.parametrize("method", ["lazy", "chebyshev", "push-sum", "choco"])
def test_without_a_tolerance_exactly_as_many_rounds_as_asked(method: str) -> None:
    results = Federation(4, topology="ring").run(consensus(method, tolerance=0.0, iterations=5), [1, 2, 3, 4])
    closing = 2 if method == "chebyshev" else 0  # what a contract with epochs adds: the diameter
    assert [result.rounds for result in results] == [5 + closing] * 4


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("lazy", {}),
        ("choco", {}),
        ("choco", {"codec": "int8"}),
        ("push-sum", {}),
        ("chebyshev", {}),
    ],
)
@pytest.mark.parametrize(("round", "reaches"), [(0, "none"), (5, "some"), (11, "all")])
def test_a_death_ends_at_the_mean_of_the_survivors(
    method: str, more: dict[str, str], round: int, reaches: str
) -> None:
    """Within 1e-9 whenever it is not in the last rounds; push-sum along arcs."""
    topology = "directed-exponential" if method == "push-sum" else "exponential"
    values = values_of(6)
    kill = Kill(3, round if method != "chebyshev" else round // 4, reaches)
    federation = Federation(6, topology=topology, kills=[kill])
    results = federation.run(consensus(method, tolerance=1e-10, **more), values)
    assert error_of(results, values) <= 1e-9
    assert all("node-03" not in result.contributors for result in results if not result.killed)


def test_a_death_in_the_last_round_leaves_what_it_leaves() -> None:
    values = values_of(8)
    federation = Federation(8, topology="exponential", kills=[Kill(3, 19)])
    results = federation.run(consensus("lazy", tolerance=0.0, iterations=20), values)
    survivors = [result for result in results if not result.killed]
    mean = np.mean([values[result.node] for result in survivors], axis=0)
    assert max(float(np.abs(np.asarray(result.value) - mean).max()) for result in survivors) > 1e-3


# ---- one by one -----------------------------------------------------------------------------


def test_chebyshev_needs_at_most_95_rounds_on_a_ring_of_32_where_plain_averaging_needs_1053() -> None:
    values = [np.array([float(node)]) for node in range(32)]
    mean = np.mean(values)
    start = float(np.linalg.norm(np.array(values) - mean))
    results = Federation(32, topology="ring").run(consensus("chebyshev", tolerance=1e-6), values)
    state = np.array([np.asarray(result.value) for result in results])
    assert float(np.linalg.norm(state - mean)) <= 1e-6 * start
    assert all(result.rounds <= 95 for result in results)
    matrix = np.array(mixing_matrix(build("ring", [f"p{i:02d}" for i in range(32)], 0)))
    plain, rounds = np.array(values), 0
    while np.linalg.norm(plain - mean) > 1e-6 * start:
        plain, rounds = matrix @ plain, rounds + 1
    assert rounds == 1053


@pytest.mark.parametrize("nodes", [4, 8, 16, 32])
def test_one_peer_exponential_is_exact_after_log2_n_rounds(nodes: int) -> None:
    values = [np.array([float(node) ** 2, -node]) for node in range(nodes)]
    results = Federation(nodes, topology="one-peer-exponential").run(consensus("push-sum"), values)
    assert all(result.rounds == nodes.bit_length() - 1 for result in results)
    # Whole numbers and halves: the mean comes out to the last bit.
    assert all(np.array_equal(np.asarray(result.value), np.mean(values, axis=0)) for result in results)


@pytest.mark.parametrize(
    ("topology", "iterations", "seed"),
    [("directed-ring", 400, 1), ("directed-exponential", 80, 2), ("directed-exponential", 80, 3)],
)
def test_push_sum_is_exact_at_20_percent_loss(topology: str, iterations: int, seed: int) -> None:
    values = values_of(8)
    federation = Federation(8, topology=topology, drop=0.2, seed=seed)
    results = federation.run(consensus("push-sum", tolerance=0.0, iterations=iterations), values)
    assert error_of(results, values) <= 1e-9


def test_push_sum_without_running_sums_would_lose_what_is_lost() -> None:
    """The same arithmetic with single messages: 20 % loss leaves everybody at a wrong mean."""
    rng = np.random.default_rng(0)
    sums, weights = rng.normal(size=8), np.ones(8)
    mean = sums.mean()
    for _ in range(300):
        arrive = rng.random(8) >= 0.2
        sums = sums / 2 + np.roll(sums / 2 * arrive, 1)
        weights = weights / 2 + np.roll(weights / 2 * arrive, 1)
    assert abs(sums[0] / weights[0] - mean) > 1e-3


def test_push_sum_refuses_arcs_that_do_not_lead_everywhere() -> None:
    from fedd.core.graph import Graph

    one_way = Graph(("a", "b"), frozenset({("a", "b")}), (frozenset({("a", "b")}),))
    for result in Federation(["a", "b"], topology=one_way).run(consensus("push-sum"), [1, 2]):
        assert isinstance(result.error, InvalidParameter)
        assert "lead from everybody to everybody" in str(result.error)


def test_push_sum_fails_where_a_death_leaves_no_way_round() -> None:
    results = Federation(5, topology="directed-ring", kills=[Kill(2, 4, "all")]).run(
        consensus("push-sum"), [1] * 5
    )
    for result in results:
        assert isinstance(result.error, FeddError)
        assert result.killed or "the arcs no longer lead" in str(result.error)


def test_push_sum_on_arcs_of_all_kinds() -> None:
    """Not balanced: some hear of many, some of one; weights even that out."""
    rows = "directed\nnode-01,node-00\nnode-02,node-00\nnode-03,node-00\nnode-02,node-01\nnode-03,node-02\n"
    values = values_of(4)
    federation = Federation(4, topology=f"edges:{rows}node-00,node-03")
    results = federation.run(consensus("push-sum"), values)
    assert error_of(results, values) <= 1e-11
    assert len({result.metrics["weight"] for result in results}) > 1


def bytes_of(
    monkeypatch: pytest.MonkeyPatch, algorithm: AverageConsensus, values: list[np.ndarray]
) -> tuple[int, float]:
    """(bytes that all nodes sent, the error)."""
    sent = 0
    swap = Context._swap

    async def counting(self: Context, payloads: Any, tag: str, lenient: bool) -> Any:
        nonlocal sent
        sent += sum(len(payload) for payload in payloads.values())
        return await swap(self, payloads, tag, lenient)

    with monkeypatch.context() as patched:
        patched.setattr(Context, "_swap", counting)
        results = Federation(len(values), topology="ring").run(algorithm, values)
    return sent, error_of(results, values)


def test_choco_int8_reaches_1e_12_with_a_quarter_of_the_bytes_and_no_more_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = values_of(8, size=2000)
    rounds = needed_rounds(1 / 3 + 2 / 3 * np.cos(2 * np.pi / 8), 1, 2e-13)
    assert rounds is not None
    same = {"tolerance": 0.0, "iterations": rounds}
    small, small_error = bytes_of(monkeypatch, consensus("choco", codec="int8", **same), values)
    large, large_error = bytes_of(monkeypatch, consensus("choco", codec="float32", **same), values)
    assert small_error <= 1e-12
    assert large_error <= 1e-12
    assert 0.25 <= small / large <= 0.26


@pytest.mark.parametrize("codec", ["float32", "float16", "bfloat16", "top-k:0.34"])
def test_choco_with_every_codec(codec: str) -> None:
    values = values_of(5)
    results = Federation(5, topology="ring").run(consensus("choco", codec=codec, tolerance=1e-10), values)
    assert error_of(results, values) <= 1e-9


def test_int8_alone_without_error_feedback_stays_far_off() -> None:
    """What the differences are for: the same codec on the values themselves."""
    codec = find_codec("int8")
    state = np.array(values_of(8, size=50))
    mean = state.mean(axis=0)
    matrix = np.array(mixing_matrix(build("ring", [f"p{i}" for i in range(8)], 0)))
    for _ in range(200):
        sent = np.array([codec.decode(codec.encode(row), 50) for row in state])
        state = state + (matrix - np.eye(8)) @ sent
    assert np.abs(state - mean).max() > 1e-4


def test_gamma_follows_the_codec() -> None:
    assert default_gamma(find_codec("int8")) == 1.0
    assert default_gamma(find_codec("top-k:0.1")) == 0.1


def test_weights_of_ones_own_are_used() -> None:
    rows = "edges:undirected\nnode-00,node-01,0.5\nnode-01,node-02,0.25"
    federation = Federation(3, topology=rows)
    results = federation.run(consensus("choco", tolerance=0.0, iterations=1), [0.0, 8.0, 0.0])
    assert [result.value for result in results] == [4.0, 2.0, 2.0]
    halved = federation.run(consensus("lazy", tolerance=0.0, iterations=1), [0.0, 8.0, 0.0])
    assert [result.value for result in halved] == [2.0, 5.0, 1.0]


def test_chebyshev_refuses_a_matrix_that_is_not_symmetric() -> None:
    rows = "node-00,node-01,.4\nnode-01,node-00,.2\nnode-01,node-02,.4\nnode-02,node-01,.2\n"
    federation = Federation(3, topology=f"edges:{rows}node-02,node-00,.4\nnode-00,node-02,.2")
    for result in federation.run(consensus("chebyshev"), [1, 2, 3]):
        assert isinstance(result.error, InvalidParameter)
        assert "symmetric" in str(result.error)


def test_a_matrix_that_never_converges_is_refused() -> None:
    federation = Federation(2, topology="edges:undirected\nnode-00,node-01,1")
    for result in federation.run(consensus("choco"), [1, 2]):
        assert isinstance(result.error, InvalidParameter)
        assert "never converges" in str(result.error)
    assert error_of(federation.run(consensus("lazy"), [1, 2]), [np.array(1.0), np.array(2.0)]) == 0.0


# ---- pairwise -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaves:
    """Pairwise gossip where one node fails after some questions."""

    name: ClassVar[str] = "leaves"
    after: int = 10

    async def run(self, ctx: RunContext) -> Message:
        if ctx.me == "node-03":
            ctx = _Failing(ctx, self.after)
        return await consensus("pairwise", tolerance=1e-9).run(ctx)


class _Failing:
    def __init__(self, ctx: RunContext, left: int) -> None:
        self._ctx, self._left = ctx, left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    async def ask(self, peer: str, message: Message, tag: str = "", **more: Any) -> Message:
        self._left -= 1
        if not self._left:
            raise InvalidMessage("it fails")
        return await self._ctx.ask(peer, message, tag, **more)


@pytest.mark.parametrize("after", [1, 12])
def test_pairwise_goes_on_to_the_mean_of_the_survivors(after: int) -> None:
    values = values_of(6)
    results = Federation(6, topology="exponential", latency_s=(0.001, 0.02)).run(Leaves(after), values)
    assert isinstance(results[3].error, InvalidMessage)
    rest = [result for result in results if result.node != 3]
    assert error_of(rest, values) <= 1e-9


def test_pairwise_ends_when_it_is_left_alone() -> None:
    federation = Federation(2, kills=[Kill(1, 0)], quorum=1)
    results = federation.run(consensus("pairwise", tolerance=0.0, iterations=50), [1.0, 3.0])
    assert results[0].error is None


def test_questions_foreseen() -> None:
    """On the complete graph lambda_2(E W) is 1 - 1 / (n - 1) (Boyd et al., section III.B)."""
    complete = build("complete", [f"p{i}" for i in range(6)], 0)
    foreseen = needed_questions(complete, 1e-6)
    assert foreseen is not None
    exact = 2 * np.log(1e-6) / np.log(1 - 1 / 5) / 6
    assert exact * 2 <= foreseen <= exact * 2 + 3
    assert needed_questions(complete, 0.0) is None
    assert needed_questions(build("complete", ["p"], 0), 1e-6) == 1


# ---- parameters -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"codec": "int8"}, "for method=choco"),
        ({"gamma": 0.5, "method": "lazy"}, "for method=choco"),
        ({"gamma": 1.5, "method": "choco"}, "gamma"),
        ({"codec": "int4", "method": "choco"}, "int4"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(bad: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, InvalidParameter), match=said):
        AverageConsensus(**bad)


def test_only_push_sum_bears_loss() -> None:
    with pytest.raises(InvalidParameter, match="every message"):
        Federation(3, drop=0.1).run(AverageConsensus(), [1, 2, 3])
    with pytest.raises(InvalidParameter, match="drop"):
        Federation(3, drop=1.0)
