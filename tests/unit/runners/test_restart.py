"""Restart strategies as decisions."""

from __future__ import annotations

from collections.abc import Sequence

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


class Crash(Failure):
    """Somebody's code raises; trying again is allowed."""

    retry_helps = True


def _given_up_after(policy: RestartPolicy, failures: Sequence[tuple[Failure, int]]) -> int | None:
    """At which of the failures, each with the checkpoints completed before it, the policy gives up."""
    for number, (failure, checkpoints) in enumerate(failures, start=1):
        if isinstance(policy.on_failure(failure, ran_s=1, checkpoints=checkpoints), GiveUp):
            return number
    return None


def test_a_loop_without_progress_is_ended_also_where_every_attempt_completes_its_first_checkpoint() -> None:
    assert _given_up_after(RestartPolicy(RestartSpec()), [(Crash("row 7"), 1)] * 20) == 10


def test_progress_and_a_long_run_start_the_count_anew() -> None:
    assert _given_up_after(RestartPolicy(RestartSpec()), [(Crash("row 7"), 0)] * 9 + [(Crash("row 9"), 2)] * 20) is None
    policy = RestartPolicy(RestartSpec(reset_after="1m"))  # type: ignore[arg-type]
    assert all(isinstance(policy.on_failure(Crash("x"), ran_s=61), RestartAfter) for _ in range(20))


def test_the_outside_world_is_tried_for_ever_but_does_not_hide_a_loop() -> None:
    policy = RestartPolicy(RestartSpec())
    assert _given_up_after(policy, [(PASSING, 0)] * 1000) is None
    assert _given_up_after(RestartPolicy(RestartSpec()), [(Crash("x"), 0), (PASSING, 0)] * 20) == 19
