"""Ways to divide samples among devices, for experiments: all are pure functions of their arguments.

Each returns one sorted array of indices a device; together they hold every sample exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedd.api import InvalidParameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Indices = NDArray[np.intp]
    Labels = NDArray[Any]


def iid(samples: int, devices: int, rng: np.random.Generator) -> list[Indices]:
    """At random, in parts whose sizes differ by one at most.

    Raises InvalidParameter for fewer samples than devices.
    """
    _check(samples, devices)
    return [np.sort(part) for part in np.array_split(rng.permutation(samples), devices)]


def by_share(samples: int, shares: Sequence[float], rng: np.random.Generator) -> list[Indices]:
    """At random, device i with `shares[i]` of all samples: 50, 30 and 20 per cent, or 5, 3 and 2 parts.

    Sizes are rounded so that they add up (largest remainder). Raises InvalidParameter for shares that are
    not positive numbers, or so small that a device gets nothing.
    """
    _check(samples, len(shares))
    weights = np.asarray(shares, np.float64)
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise InvalidParameter(f"the shares {list(shares)} are not all positive", field="shares")
    exact = weights / weights.sum() * samples
    sizes = np.floor(exact).astype(np.intp)
    for index in np.argsort(-(exact - sizes), kind="stable")[: samples - int(sizes.sum())]:
        sizes[index] += 1
    if not sizes.all():
        raise InvalidParameter(
            f"a share of {float(weights.min()):g} of {samples} samples is none", field="shares"
        )
    return [np.sort(part) for part in np.split(rng.permutation(samples), np.cumsum(sizes)[:-1])]


def dirichlet(
    labels: Labels, devices: int, alpha: float, rng: np.random.Generator, *, at_least: int = 1
) -> list[Indices]:
    """For every class a draw from Dirichlet(alpha) says which share of it each device gets.

    A small alpha (0.1) gives most devices a few classes, a large one (100) comes near IID. Drawn again, up to
    1000 times, until every device has `at_least` samples.

    Source: T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the effects of non-identical data distribution for
    federated visual classification", arXiv 1909.06335 (2019); class by class as in M. Yurochkin et al.,
    "Bayesian nonparametric federated learning of neural networks", ICML 2019.

    Raises InvalidParameter for an alpha that is not positive, or when no draw gives enough samples to all.
    """
    _check(len(labels), devices)
    if not 0 < alpha < float("inf"):
        raise InvalidParameter(f"alpha must be above 0, not {alpha:g}", field="alpha")
    for _ in range(1000):
        parts: list[list[Indices]] = [[] for _ in range(devices)]
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            shares = rng.dirichlet(np.full(devices, alpha))
            cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.intp)
            for part, piece in zip(parts, np.split(members, cuts), strict=True):
                part.append(piece)
        joined = [np.sort(np.concatenate(part)) for part in parts]
        if min(len(part) for part in joined) >= at_least:
            return joined
    raise InvalidParameter(
        f"no draw of Dirichlet({alpha:g}) gives each of {devices} devices {at_least} samples",
        hint="a larger alpha, or fewer devices",
        field="alpha",
    )


def by_label(labels: Labels, devices: int, classes_each: int, rng: np.random.Generator) -> list[Indices]:
    """Label-skewed: device i has `classes_each` classes, in turn from i * classes_each on, and no others.

    A class that several devices have is shared evenly among them, at random. With 10 classes, 5 devices and
    two classes each, every class is on one device alone.

    Source: the shards of H. B. McMahan et al., "Communication-efficient learning of deep networks from
    decentralized data", AISTATS 2017, with whole classes in place of shards.

    Raises InvalidParameter when some class would be on no device, or there are fewer classes than that.
    """
    _check(len(labels), devices)
    classes = np.unique(labels)
    if not 0 < classes_each <= len(classes):
        raise InvalidParameter(
            f"{classes_each} classes each, and there are {len(classes)}", field="classes_each"
        )
    if devices * classes_each < len(classes):
        raise InvalidParameter(
            f"{devices} devices with {classes_each} classes each cannot hold {len(classes)} classes",
            field="classes_each",
        )
    holders: list[list[int]] = [[] for _ in classes]
    for device in range(devices):
        for turn in range(classes_each):
            holders[(device * classes_each + turn) % len(classes)].append(device)
    parts: list[list[Indices]] = [[] for _ in range(devices)]
    for label, devices_of_it in zip(classes, holders, strict=True):
        members = rng.permutation(np.flatnonzero(labels == label))
        for device, piece in zip(devices_of_it, np.array_split(members, len(devices_of_it)), strict=True):
            parts[device].append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def _check(samples: int, devices: int) -> None:
    if not 0 < devices <= samples:
        raise InvalidParameter(f"{samples} samples for {devices} devices", hint="each needs one at least")
