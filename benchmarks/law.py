"""A server's law: workers that take batches from one bounded queue, as TorchServe's do.

A worker takes the model's one lock and waits for a first request. The batch delay begins when
that one is dequeued; until the batch is full or the delay is over the worker takes what comes.
Then it releases the lock and serves the batch: one batch in flight for each worker.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

Token = TypeVar("Token")


@dataclass(frozen=True)
class Law:
    """What a server can do.

    Attributes:
        workers: how many batches are served at once.
        batch: requests that a batch holds at most.
        delay_s: how long a worker waits for more once it has a first request.
        service_s, each_s: a batch of n takes service_s + n × each_s.
        exponential: whether that is the mean of an exponential distribution.
        queue: requests that wait at most, those in batches not counted; more are refused.
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
            raise ValueError(f"impossible law: {self}")

    def mean_s(self, n: int) -> float:
        """The mean service time of a batch of n, seconds."""
        return self.service_s + n * self.each_s

    @property
    def capacity_rps(self) -> float:
        """Requests per second where every batch is full; a short queue may sustain less."""
        return self.workers * self.batch / self.mean_s(self.batch)


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Times count from the first request, or from `armed` where that is awaited.

    Attributes:
        fail_every: every so-many-th request is answered 500 at once; 0 is never.
        reset_every: the connection of every so-many-th request is reset; 0 is never.
        stall_at_s, stall_s: all workers stand still for stall_s.
        slower_per_s: service times grow by this share of their first length each second.
        halved_at_s: from then on service takes twice as long.
        wait_for_arm: the times count from an explicit sign, not from the first request.
    """

    fail_every: int = 0
    reset_every: int = 0
    stall_at_s: float = 0.0
    stall_s: float = 0.0
    slower_per_s: float = 0.0
    halved_at_s: float | None = None
    wait_for_arm: bool = False

    def lasts_s(self, work_s: float, at_s: float) -> float:
        """How long a batch of work_s lasts that begins at at_s; before 0 nothing goes wrong."""
        if at_s < 0:
            return work_s
        work_s *= 1 + self.slower_per_s * at_s
        if self.halved_at_s is not None and at_s >= self.halved_at_s:
            work_s *= 2
        stall_end_s = self.stall_at_s + self.stall_s
        if at_s < stall_end_s and at_s + work_s > self.stall_at_s:
            work_s += stall_end_s - max(at_s, self.stall_at_s)
        return work_s


class Line(Generic[Token]):
    """Requests that wait, form batches and are served; on whatever clock its callers read.

    Everything happens at exact times: a caller that looks late changes nothing of them, so
    that errors of timers do not add up.
    """

    def __init__(self, law: Law, faults: Faults = Faults(), seed: int = 0):
        self.law, self.faults = law, faults
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
        """When something happens next by itself; infinite where nothing does."""
        return min(self._serving[0][0] if self._serving else float("inf"), self._deadline)

    def advance(self, now: float) -> list[tuple[float, list[Token]]]:
        """Let happen what is due by now; return the batches served, each with its end."""
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
        """Take a request in; False where the queue is full. `advance` to now comes before."""
        # Where a worker could take it at once nothing waits, and the queue is not full.
        if len(self._waiting) >= self.law.queue:
            return False
        self._waiting.append(token)
        self._form(now)
        return True

    def _form(self, now: float) -> None:
        """One worker at a time holds the lock and takes what waits."""
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
        lasts_s = self.faults.lasts_s(work_s, now - self.faults_begin_s)
        heapq.heappush(self._serving, (now + lasts_s, len(self.batches), self._forming))
        self.batches.append((n, lasts_s))
        self._forming, self._deadline = [], float("inf")
