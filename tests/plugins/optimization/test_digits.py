"""Handwritten digits on ten nodes that each see other classes: what local steps need tracking for."""

from __future__ import annotations

import numpy as np
import pytest
from plugins.optimization.problems import run

from fedd.testing import Device
from fedd_learners import Softmax
from fedd_learners.digits import split_digits
from fedd_learners.partition import dirichlet
from fedd_optimization import DSGD, KGT

NODES = 10
LOCAL_STEPS = 10
ROUNDS = 130
STEP = 0.1


def devices() -> list[Device]:
    """Softmax regression over parts drawn from Dirichlet(0.1), all with the same 360 test samples."""
    train, test = split_digits()
    parts = dirichlet(train.y, NODES, 0.1, np.random.default_rng(0))
    return [
        Device(
            Softmax(classes=10, batch=32),
            {
                "x": train.x[part],
                "y": train.y[part].astype(float),
                "x_test": test.x,
                "y_test": test.y.astype(float),
            },
        )
        for part in parts
    ]


def alone(device: Device) -> float:
    """The accuracy of one node that trains as much without the others."""
    learner = device.learner
    learner.prepare(device.data, np.random.default_rng(1))
    learner.train(steps=LOCAL_STEPS * ROUNDS, step=STEP)
    return learner.evaluate()["accuracy"]


def test_tracked_local_steps_learn_what_no_node_sees() -> None:
    tracked = run(
        KGT(iterations=ROUNDS, step=STEP, local_steps=LOCAL_STEPS, history=0), devices(), topology="ring"
    )
    assert min(float(result.metrics["accuracy"]) for result in tracked) >= 0.89


def test_plain_local_steps_drift_and_one_node_alone_knows_its_classes_only() -> None:
    plain = run(
        DSGD(iterations=ROUNDS, step=STEP, local_steps=LOCAL_STEPS, history=0), devices(), topology="ring"
    )
    reached = np.mean([float(result.metrics["accuracy"]) for result in plain])
    assert reached == pytest.approx(0.84, abs=0.015)
    assert np.mean([alone(device) for device in devices()]) == pytest.approx(0.39, abs=0.015)
