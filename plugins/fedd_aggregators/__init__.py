"""How a round's models become one: means, adaptive optimisers, and what bears members that lie."""

from __future__ import annotations

from fedd.api import Aggregator, hookimpl
from fedd_aggregators.adaptive import FedAdagrad, FedAdam, FedYogi
from fedd_aggregators.averaging import FedAvg, FedProx
from fedd_aggregators.robust import (
    CenteredClipping,
    CoordinateMedian,
    GeometricMedian,
    Krum,
    MultiKrum,
    TrimmedMean,
)
from fedd_aggregators.scaffold import Scaffold
from fedd_aggregators.screens import MAX_SAMPLES, flaw, screen

__all__ = [
    "MAX_SAMPLES",
    "CenteredClipping",
    "CoordinateMedian",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedProx",
    "FedYogi",
    "GeometricMedian",
    "Krum",
    "MultiKrum",
    "Scaffold",
    "TrimmedMean",
    "flaw",
    "screen",
]


@hookimpl
def fedd_register_aggregators() -> list[type[Aggregator]]:
    """Register the twelve."""
    return [
        FedAvg,
        FedProx,
        Scaffold,
        FedAdam,
        FedYogi,
        FedAdagrad,
        CoordinateMedian,
        TrimmedMean,
        Krum,
        MultiKrum,
        GeometricMedian,
        CenteredClipping,
    ]
