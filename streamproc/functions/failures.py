"""What a whole step's user code does wrong, whatever the rows: the pipeline fails, and the user mends the code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from operators.row_errors import RowRefused
from state.failure import Failure
from streamproc.functions.loading import UserCode, describe_error


class UserCodeFailed(Failure):
    """User code does not keep to what a step asks of it: no row is to blame."""

    acts = "user"

    def __init__(self, step: str, code: UserCode, message: str) -> None:
        super().__init__(f"step {step}: {code}: {message}")


class RowTold(RowRefused):
    """User code raised on a row; the message has the user's file and line."""


def told(error: BaseException, code: UserCode) -> RowRefused:
    """What user code raised, as the fault of the rows it was given."""
    if isinstance(error, RowRefused):
        return error
    return RowTold(describe_error(error, code.path(), code.file))


@contextmanager
def rows_to_blame(code: UserCode) -> Iterator[None]:
    """Whatever is raised inside, but for failures of the product, is the fault of the rows being worked on."""
    try:
        yield
    except (Failure, RowRefused):
        raise
    except Exception as error:
        raise told(error, code) from error
