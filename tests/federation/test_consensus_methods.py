"""Every method of averaging among real daemons, along arcs and over edges that somebody wrote down too."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from federation.daemons import federation

pytestmark = pytest.mark.slow

VALUES = [3.0, -1.5, 40.25, 1e3]
MEAN = sum(VALUES) / len(VALUES)


def test_every_method_ends_at_the_mean(tmp_path: Path) -> None:
    with federation(len(VALUES)) as fed:
        fed.set_inputs(VALUES)
        edges = tmp_path / "edges.csv"
        names = [daemon.name for daemon in fed]
        rows = [f"{one}, {other}, 0.3" for one, other in itertools.pairwise(names)]
        edges.write_text("\n".join(["undirected  # a line", *rows]))
        for method, topology, more in (
            ("metropolis", f"edges:{edges}", ()),
            ("lazy", "ring@uniform", ()),
            ("chebyshev", "ring", ()),
            ("push-sum", "one-peer-exponential", ()),
            ("push-sum", "directed-ring", ()),
            ("choco", f"edges:{edges}", ("codec=int8",)),
            ("pairwise", "complete", ()),
        ):
            asked = ("run", "consensus", f"method={method}", *more, "--input", "x", "--topology", topology)
            reply = fed[1].ctl(*asked)
            assert reply.code == 0, (method, topology, reply.err)
            result = reply.json
            assert result["state"] == "finished", result
            assert result["value"] == pytest.approx(MEAN, abs=1e-8), (method, topology)
            assert len(result["contributors"]) == len(VALUES)
            if topology == "one-peer-exponential":
                assert (result["rounds"], result["value"]) == (2, MEAN)

        refused = fed[0].ctl("run", "consensus", "method=lazy", "--input", "x", "--topology", "directed-ring")
        assert refused.code == 2  # before anybody was asked
        assert "needs edges that go both ways" in refused.err
        edges.write_text(f"{names[0]},{names[1]}\n{names[1]},{names[0]}\n{names[1]},{names[2]}")
        wrong = fed[0].ctl("run", "consensus", "--input", "x", "--topology", f"edges:{edges}")
        assert wrong.code == 2
        assert "row 3" in wrong.err
        assert "one-sided" in wrong.err
