"""Decentralised optimisation: the federation minimises the sum of its devices' objectives, without a server.

Every method is a class; objectives are the devices' learners.
"""

from __future__ import annotations

from fedd.api import Algorithm, hookimpl
from fedd_optimization.asynchronous import ADPSGD
from fedd_optimization.compressed import ChocoSGD
from fedd_optimization.correction import EXTRA, ExactDiffusion
from fedd_optimization.descent import DGD, DSGD
from fedd_optimization.directed import PushPull
from fedd_optimization.tracking import KGT, GradientTracking, GTAdam

__all__ = [
    "ADPSGD",
    "DGD",
    "DSGD",
    "EXTRA",
    "KGT",
    "ChocoSGD",
    "ExactDiffusion",
    "GTAdam",
    "GradientTracking",
    "PushPull",
]


@hookimpl
def fedd_register_algorithms() -> list[type[Algorithm]]:
    """Register all methods."""
    return [
        DGD,
        DSGD,
        GradientTracking,
        GTAdam,
        KGT,
        EXTRA,
        ExactDiffusion,
        PushPull,
        ChocoSGD,
        ADPSGD,
    ]
