"""Agreement on one value: the mean, the largest or the smallest of everybody's inputs."""

from __future__ import annotations

from fedd.api import Algorithm, hookimpl
from fedd_consensus.average import AverageConsensus
from fedd_consensus.extremes import Maximum, Minimum

__all__ = ["AverageConsensus", "Maximum", "Minimum", "fedd_register_algorithms"]


@hookimpl
def fedd_register_algorithms() -> list[type[Algorithm]]:
    """Register the three."""
    return [AverageConsensus, Maximum, Minimum]
