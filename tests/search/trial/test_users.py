"""The users of a closed loop."""

import pytest

from search.trial.users import closed_loop_users


@pytest.mark.parametrize(
    ("capacities", "queue", "users"),
    [
        ([8], 100, 16),
        ([200], 100, 300),
        ([1], 100, 2),
        ([4000], 9000, 2000),
        ([8, 4], 100, 24),
        # All users may wait for the second model.
        ([64, 1], 100, 101),
    ],
)
def test_closed_loop_users_fill_batches_and_overflow_no_queue(
    capacities: list[int], queue: int, users: int
) -> None:
    assert closed_loop_users(capacities, queue) == users
