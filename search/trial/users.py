"""The number of users of a closed loop. Pure."""

from __future__ import annotations

from collections.abc import Sequence

#: Maximum number of users of a closed loop.
_MAX_USERS = 2000


def closed_loop_users(batch_capacities: Sequence[int], queue_size: int) -> int:
    """Return the users that fill every batch twice, or fewer if a queue would overflow.

    Args:
        batch_capacities: of each model; all users may wait for the same one.
    """
    return max(2, min(2 * sum(batch_capacities), min(batch_capacities) + queue_size, _MAX_USERS))
