"""Learners to begin with: objectives with exact gradients, small networks, scikit-learn and PyTorch models.

Neither scikit-learn nor PyTorch is imported before a run uses it.
"""

from __future__ import annotations

from fedd.api import Learner, hookimpl
from fedd_learners.linear import LeastSquares, Logistic, Ridge
from fedd_learners.network import Mlp, NumpyMlp, NumpySoftmax, Softmax
from fedd_learners.scikit import SklearnModel
from fedd_learners.torch_module import TorchModule

__all__ = [
    "LeastSquares",
    "Logistic",
    "Mlp",
    "NumpyMlp",
    "NumpySoftmax",
    "Ridge",
    "SklearnModel",
    "Softmax",
    "TorchModule",
]


@hookimpl
def fedd_register_learners() -> list[type[Learner]]:
    """The learners of this plugin."""
    return [
        LeastSquares,
        Logistic,
        Mlp,
        NumpyMlp,
        NumpySoftmax,
        Ridge,
        SklearnModel,
        Softmax,
        TorchModule,
    ]
