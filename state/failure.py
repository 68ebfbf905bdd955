"""Every failure says who can act on it and whether trying again helps."""

from __future__ import annotations

import errno
import os
from typing import ClassVar, Final, Literal

Actor = Literal["user", "world", "us"]


class Failure(Exception):
    """Base of every error the product raises on purpose.

    `acts` is who can mend it: the user (their file, their records), the outside world (a broker, a
    disk) or us (a defect). `retry_helps` decides whether a restart strategy may try again.
    """

    acts: ClassVar[Actor] = "us"
    retry_helps: ClassVar[bool] = False


class StateError(Failure):
    """Local state could not be read or written; restoring from the last checkpoint may mend it."""

    retry_helps = True


class NoRoom(StateError):
    """The machine has no more room for local state: space on the disk, files that may be open."""

    acts = "world"


_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)


def state_error(what: str, error: Exception) -> StateError:
    """What could not be done, with its reason. RocksDB tells the system's error by its text alone."""
    reason = str(error)
    no_room = getattr(error, "errno", None) in _NO_ROOM or any(os.strerror(number) in reason for number in _NO_ROOM)
    return (NoRoom if no_room else StateError)(f"{what}: {reason}")


class CorruptCheckpoint(Failure):
    """A checkpoint file is missing, torn or does not match its checksum."""

    acts = "world"


class StoreUnavailable(Failure):
    """The checkpoint store did not answer in time or answered with a passing error."""

    acts = "world"
    retry_helps = True


class StoreRefused(Failure):
    """The checkpoint store refused for good: permission, or a name that cannot be written."""

    acts = "user"


class NotInStore(Failure):
    """The checkpoint store holds no file of that name."""

    acts = "world"


class AlreadyExists(Failure):
    """Create-if-absent found the name taken."""

    acts = "us"
