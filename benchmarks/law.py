"""The law of a server: workers that take batches from one bounded queue, as TorchServe's do.

A worker takes the model's only lock and waits for a first request. The batch delay begins when
that request is dequeued. Until the batch is full or the delay is over, the worker takes further
requests. Then it releases the lock and serves the batch, one batch at a time.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.wander import Wander

Token = TypeVar("Token")


@dataclass(frozen=True)
class Law:
    """The capacity and the timing of a server.

    Attributes:
        workers: batches that are served at once.
        batch: greatest number of requests in a batch.
        delay_s: how long a worker waits for further requests after the first, seconds.
        service_s, each_s: a batch of n takes service_s + n × each_s seconds.
        exponential: whether service times are exponentially distributed with that mean.
        queue: greatest number of waiting requests, without those in batches; further ones are
            refused.
    """

    workers: int = 1
    batch: int = 1
    delay_s: float = 0.0
    service_s: float = 0.01
    each_s: float = 0.0
    exponential: bool = False
    queue: int = 1000

    def __post_init__(self) -> None:
        if min(self.workers, self.batch, self.queue) < 1 or not self.mean_s(1) > 0:
            raise ValueError(
                f"a law needs a worker, a batch and a queue of at least 1, and a positive "
                f"service time: {self}"
            )

    def mean_s(self, n: int) -> float:
        """Return the mean service time of a batch of n, seconds."""
        return self.service_s + n * self.each_s

    @property
    def capacity_rps(self) -> float:
        """Requests per second if every batch is full; a short queue may sustain less."""
        return self.workers * self.batch / self.mean_s(self.batch)


@dataclass(frozen=True)
class Faults:
    """Faults of a server. Times count from the first request, or from `Stub.arm`.

    Attributes:
        fail_every: each request whose number is a multiple of this is answered 500 at once; 0
            for none.
        reset_every: the same for a reset of the connection.
        stall_at_s, stall_s: all workers stop for stall_s seconds, from stall_at_s on.
        slower_per_s: growth of service times per second, as a share of their first value.
        halved_at_s: from this time on, service takes twice as long; None for never.
        wait_for_arm: whether times count from `Stub.arm` instead of the first request.
    """

    fail_every: int = 0
    reset_every: int = 0
    stall_at_s: float = 0.0
    stall_s: float = 0.0
    slower_per_s: float = 0.0
    halved_at_s: float | None = None
    wait_for_arm: bool = False

    def batch_duration_s(self, work_s: float, at_s: float) -> float:
        """Return how long a batch of work_s lasts if it begins at at_s; no faults before 0."""
        if at_s < 0:
            return work_s
        work_s *= 1 + self.slower_per_s * at_s
        if self.halved_at_s is not None and at_s >= self.halved_at_s:
            work_s *= 2
        stall_end_s = self.stall_at_s + self.stall_s
        if at_s < stall_end_s and at_s + work_s > self.stall_at_s:
            work_s += stall_end_s - max(at_s, self.stall_at_s)
        return work_s


class BatchServer(Generic[Token]):
    """Requests that wait, form batches and are served, on any clock of the caller.

    Events have exact times. A late call of `advance` does not change them, so that errors of
    timers do not add up.

    Args:
        speed: how the speed of all workers wanders; 1 if None.
        zero_s: the time of the caller's clock at which the wandering begins.
    """

    def __init__(
        self,
        law: Law,
        faults: Faults = Faults(),
        seed: int = 0,
        speed: Wander | None = None,
        zero_s: float = 0.0,
    ):
        self.law, self.faults = law, faults
        self._speed, self._zero_s = speed, zero_s
        self.faults_begin_s = float("inf")
        #: Size and service time of each batch begun.
        self.batches: list[tuple[int, float]] = []
        self._random = random.Random(seed)
        self._waiting: deque[Token] = deque()
        self._forming: list[Token] = []
        self._deadline = float("inf")
        self._idle = law.workers
        self._serving: list[tuple[float, int, list[Token]]] = []

    @property
    def next_s(self) -> float:
        """The time of the next event; infinite without one."""
        return min(self._serving[0][0] if self._serving else float("inf"), self._deadline)

    def advance(self, now: float) -> list[tuple[float, list[Token]]]:
        """Process the events due by now; return the batches served, each with its end."""
        served = []
        while (at := self.next_s) <= now:
            if self._serving and self._serving[0][0] == at:
                end, _, tokens = heapq.heappop(self._serving)
                served.append((end, tokens))
                self._idle += 1
            else:
                self._serve(at)
            self._form(at)
        return served

    def arrive(self, now: float, token: Token) -> bool:
        """Accept a request; return False if the queue is full. Call `advance` to now first."""
        # If a worker is free, nothing waits and the queue is not full.
        if len(self._waiting) >= self.law.queue:
            return False
        self._waiting.append(token)
        self._form(now)
        return True

    def _form(self, now: float) -> None:
        """Fill batches: one worker at a time holds the lock and takes waiting requests."""
        while self._waiting and (self._forming or self._idle):
            if not self._forming:
                self._idle -= 1
                self._deadline = now + self.law.delay_s
            while self._waiting and len(self._forming) < self.law.batch:
                self._forming.append(self._waiting.popleft())
            if len(self._forming) == self.law.batch:
                self._serve(now)

    def _serve(self, now: float) -> None:
        n = len(self._forming)
        work_s = self.law.mean_s(n)
        if self.law.exponential:
            work_s *= self._random.expovariate(1.0)
        duration_s = self.faults.batch_duration_s(work_s, now - self.faults_begin_s)
        if self._speed is not None:
            begin_s = now - self._zero_s
            duration_s = self._speed.end_s(begin_s, duration_s) - begin_s
        heapq.heappush(self._serving, (now + duration_s, len(self.batches), self._forming))
        self.batches.append((n, duration_s))
        self._forming, self._deadline = [], float("inf")
