"""The spectrum of a graph's mixing matrix: how fast averaging on it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedd.api.errors import InvalidParameter
from fedd.api.graph import Spectrum
from fedd.core.graph import Graph
from fedd.core.mixing import mixing_matrix

if TYPE_CHECKING:
    from fedd.api.types import FloatArray

MAX_MEMBERS = 1024
"""Of a graph whose spectrum is computed: 1024 members take a third of a second, directed ones three."""

_ROUNDING = 1e-9
"""Eigenvalues smaller than this are zero: those of a nilpotent matrix come out as large as eps^(1/n)."""


def graph_spectrum(graph: Graph) -> Spectrum:
    """The spectrum of W (`fedd.core.mixing`); of a graph with phases, of the product over one period.

    Raises InvalidParameter for more than `MAX_MEMBERS` members.

    Source: S. Boyd, A. Ghosh, B. Prabhakar, D. Shah, "Randomized gossip algorithms", IEEE Trans. Inf.
    Theory 52 (2006), section II, for what the second eigenvalue says.
    """
    import numpy as np  # here, because runs that ask for no spectrum spare the linear algebra

    count = len(graph.members)
    if count > MAX_MEMBERS:
        raise InvalidParameter(
            f"the spectrum of {count} members is too much to compute, {MAX_MEMBERS} are the most",
            hint="take a method that needs no spectrum",
            field="topology",
        )
    if count < 2:
        return Spectrum(0.0, 0.0, 0.0, graph.period)
    matrices = [np.array(mixing_matrix(graph, round)) for round in range(graph.period)]
    product: FloatArray = matrices[0]
    for matrix in matrices[1:]:
        product = matrix @ product
    if not graph.directed and np.array_equal(product, product.T):
        values = np.linalg.eigvalsh(product)
        lower, upper = float(values[0]), float(values[-2])
        return Spectrum(max(abs(lower), abs(upper)), upper, lower, 1)
    # The eigenvalue 1 belongs to the constant vector on the right: taken out before, so that it is not
    # mistaken for another of modulus 1.
    moduli = np.abs(np.linalg.eigvals(product - np.full((count, count), 1.0 / count)))
    second = float(moduli.max())
    second = second if second > _ROUNDING else 0.0
    return Spectrum(second ** (1.0 / graph.period), second, -second, graph.period, symmetric=False)
