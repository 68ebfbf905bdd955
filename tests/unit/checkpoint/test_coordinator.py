"""The coordinator: one checkpoint at a time, complete only when all have acknowledged and the manifest is there."""

from __future__ import annotations

from operators.element import CheckpointId
from streamproc.checkpoint.coordinator import (
    Abort,
    Acknowledged,
    CheckpointCoordinator,
    Complete,
    CreateManifest,
    Declined,
    Expired,
    FailJob,
    InjectBarriers,
    ManifestCreated,
    SubtaskId,
    Trigger,
)

A: SubtaskId = ("a", 0)
B: SubtaskId = ("b", 0)
ONE, TWO = CheckpointId(1), CheckpointId(2)


def coordinator(tolerate: int = 1) -> CheckpointCoordinator:
    return CheckpointCoordinator(frozenset({A, B}), ONE, tolerate)


def test_a_checkpoint_from_trigger_to_completion() -> None:
    c = coordinator()
    assert c.handle(Trigger()) == [InjectBarriers(ONE)]
    assert c.handle(Acknowledged(A, ONE, {"x": 1})) == []
    assert c.handle(Acknowledged(B, ONE, {})) == [CreateManifest(ONE, {A: {"x": 1}, B: {}})]
    assert c.pending == ONE, "not complete before its manifest exists"
    assert c.handle(ManifestCreated(ONE)) == [Complete(ONE)]
    assert c.handle(Trigger()) == [InjectBarriers(TWO)]


def test_a_second_trigger_waits_for_the_first_checkpoint() -> None:
    c = coordinator()
    c.handle(Trigger())
    assert c.handle(Trigger()) == []


def test_an_expired_checkpoint_names_who_did_not_answer_and_late_answers_change_nothing() -> None:
    c = coordinator()
    c.handle(Trigger())
    c.handle(Acknowledged(A, ONE, {}))
    assert c.handle(Expired(ONE)) == [Abort(ONE, "timed out; not acknowledged by: b[0]")]
    assert c.handle(Acknowledged(B, ONE, {})) == []
    assert c.handle(ManifestCreated(ONE)) == []
    assert c.handle(Trigger()) == [InjectBarriers(TWO)]


def test_failures_in_a_row_are_tolerated_up_to_the_limit() -> None:
    c = coordinator(tolerate=1)
    c.handle(Trigger())
    assert c.handle(Declined(ONE, "disk full")) == [Abort(ONE, "disk full")]
    c.handle(Trigger())
    commands = c.handle(Declined(TWO, "disk full"))
    assert commands == [Abort(TWO, "disk full"), FailJob("2 checkpoints in a row have failed; the last one: disk full")]


def test_a_completed_checkpoint_forgives_earlier_failures() -> None:
    c = coordinator(tolerate=1)
    for checkpoint in range(1, 7):
        c.handle(Trigger())
        if checkpoint % 2:
            assert not any(isinstance(x, FailJob) for x in c.handle(Declined(CheckpointId(checkpoint), "no")))
        else:
            c.handle(Acknowledged(A, CheckpointId(checkpoint), {}))
            c.handle(Acknowledged(B, CheckpointId(checkpoint), {}))
            c.handle(ManifestCreated(CheckpointId(checkpoint)))


def test_what_the_store_refuses_for_good_is_not_tried_again() -> None:
    c = coordinator(tolerate=3)
    c.handle(Trigger())
    assert c.handle(Declined(ONE, "permission denied", refused=True)) == [
        Abort(ONE, "permission denied"),
        FailJob("permission denied", refused=True),
    ]
