"""The real command line in a process that kills itself (SIGKILL) at a chosen point of a commit.

    python -m tests.integration.crashing POINT N run pipeline.yaml …

Nothing is mocked: the N-th passage of POINT runs the real code up to there, then the process is gone. Where
`CRASH_SIGNAL` is set to the number of another signal (SIGSTOP), it is sent instead.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

POINTS = (
    "before-prepare",
    "after-prepare",
    "before-manifest",
    "after-manifest",
    "before-commit",
    "mid-commit",
    "after-commit",
)


def _kill_at(passage: int) -> Callable[[], None]:
    left = passage

    def pass_by() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), int(os.environ.get("CRASH_SIGNAL", signal.SIGKILL)))

    return pass_by


def arm(point: str, passage: int) -> None:
    """Have the process killed at the `passage`-th time it comes by `point`."""
    from operators.element import CheckpointId
    from streamproc.checkpoint import driver
    from streamproc.connectors.kafka.sink import TransactionalWriter

    pass_by = _kill_at(passage)

    def around(owner: Any, name: str, *, before: bool) -> None:
        original = getattr(owner, name)

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            if before:
                pass_by()
            result = await original(*args, **kwargs)
            if not before:
                pass_by()
            return result

        setattr(owner, name, wrapped)

    if point in ("before-prepare", "after-prepare"):
        around(TransactionalWriter, "prepare", before=point == "before-prepare")
    elif point in ("before-manifest", "after-manifest"):
        around(driver.CheckpointDriver, "_create_manifest", before=point == "before-manifest")
    elif point in ("before-commit", "mid-commit"):
        # Every writer's commit passes here: the first passage is before any has committed, a later one in
        # the middle, with some transactions committed and others not.
        around(TransactionalWriter, "commit", before=True)
    elif point == "after-commit":
        original = driver.tidy

        def tidy(store: Any, attempt: int, checkpoint: CheckpointId, keep: int) -> None:
            pass_by()
            original(store, attempt, checkpoint, keep)

        driver.tidy = tidy
    else:
        raise SystemExit(f"no such point: {point}")


def main() -> None:
    """Arm, then be streamproc."""
    point, passage = sys.argv[1], int(sys.argv[2])
    sys.argv = ["streamproc", *sys.argv[3:]]
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    arm(point, passage)
    from streamproc.cli import main as streamproc

    streamproc()


if __name__ == "__main__":
    main()
