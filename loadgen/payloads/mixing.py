"""Mix payloads in given proportions. Pure."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat

from loadgen.payloads.payload import Payload
from loadgen.schedule import Share


def mix(
    payloads: Sequence[Payload],
    share: Share,
    seed: int = 0,
    weights: Sequence[float] | None = None,
) -> Iterator[Payload]:
    """Return an endless, seeded mix of the payloads, the same for every window.

    In each stretch of the mix, a payload's count differs from its exact share by at most one: its
    n-th copy has a random place in the n-th interval of a length that is 1 ÷ its weight.

    Args:
        weights: of the payloads; their own `weight` if None.
    """
    if len(payloads) == 1:
        return repeat(payloads[0])
    if weights is None:
        weights = [payload.weight for payload in payloads]
    return _mix(payloads, share, seed, weights)


def _mix(
    payloads: Sequence[Payload], share: Share, seed: int, weights: Sequence[float]
) -> Iterator[Payload]:
    generator = random.Random(f"{seed}/{share.index}/{share.count}")
    if len(set(weights)) == 1:
        while True:
            yield from generator.sample(payloads, len(payloads))
    # Weights are relative: the greatest is 1, so that places neither overflow nor vanish.
    highest = max(weights)
    intervals = [highest / weight for weight in weights]
    places = [(generator.random() * interval, i, 0) for i, interval in enumerate(intervals)]
    heapq.heapify(places)
    while True:
        _, index, copy = places[0]
        yield payloads[index]
        place = (copy + 1 + generator.random()) * intervals[index]
        heapq.heapreplace(places, (place, index, copy + 1))


def combine(groups: Mapping[str, tuple[Sequence[Payload], float]]) -> list[Payload]:
    """Return the payloads of several groups, such as one per model, with weights for a mix.

    Args:
        groups: by name, the payloads of each group, and the group's share of all requests, relative
            to the other groups. Within a group, the payloads keep their proportions.
    """
    combined: list[Payload] = []
    for name, (payloads, share) in groups.items():
        total = sum(payload.weight for payload in payloads)
        combined += [replace(p, weight=p.weight / total * share, group=name) for p in payloads]
    return combined
