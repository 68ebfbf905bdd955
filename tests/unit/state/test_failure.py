"""Who has to act on what local state meets."""

from __future__ import annotations

import errno

import pytest

from state.failure import state_error


@pytest.mark.parametrize(
    ("error", "acts"),
    [
        (OSError(errno.EMFILE, "Too many open files", "db/LOCK"), "world"),
        (Exception("IO error: No space left on device: While appending to file: db/000020.dbtmp"), "world"),
        (Exception("Invalid argument: db: does not exist (create_if_missing is false)"), "us"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "db/000008.sst"), "us"),
    ],
)
def test_a_machine_without_room_is_for_the_outside_world_to_mend(error: Exception, acts: str) -> None:
    failure = state_error("cannot open state in db", error)
    assert failure.acts == acts
    assert failure.retry_helps
    assert str(failure) == f"cannot open state in db: {error}"
