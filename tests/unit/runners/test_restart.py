"""Restart strategies as decisions."""

from __future__ import annotations

from state.failure import Failure, StoreUnavailable
from streamproc.pipeline.spec import RestartSpec
from streamproc.runners.restart import GiveUp, RestartAfter, RestartPolicy

PASSING = StoreUnavailable("503")


def test_backoff_doubles_up_to_its_maximum_and_starts_over_after_a_good_run() -> None:
    policy = RestartPolicy(RestartSpec(initial="1s", max="4s", reset_after="1m"))  # type: ignore[arg-type]
    delays = [policy.on_failure(PASSING, ran_s=1) for _ in range(4)]
    assert [d.delay_s for d in delays if isinstance(d, RestartAfter)] == [1, 2, 4, 4]
    assert policy.on_failure(PASSING, ran_s=61) == RestartAfter(1.0, 1)


def test_fixed_gives_up_after_its_attempts() -> None:
    policy = RestartPolicy(RestartSpec(strategy="fixed", attempts=2, delay="5s"))  # type: ignore[arg-type]
    assert policy.on_failure(PASSING, 1) == RestartAfter(5.0, 1)
    assert policy.on_failure(PASSING, 1) == RestartAfter(5.0, 2)
    assert isinstance(policy.on_failure(PASSING, 1), GiveUp)


def test_none_and_failures_that_would_come_again_give_up_at_once() -> None:
    assert isinstance(RestartPolicy(RestartSpec(strategy="none")).on_failure(PASSING, 1), GiveUp)
    assert isinstance(RestartPolicy(RestartSpec()).on_failure(Failure("a defect"), 1), GiveUp)
