"""The real command line in a process that kills itself (SIGKILL) at a chosen point of a commit.

    python -m tests.integration.crashing POINT N run pipeline.yaml …        (or serve …)

Nothing is mocked: the N-th passage of POINT runs the real code up to there, then the process is gone. Where
`CRASH_SIGNAL` is set to the number of another signal (SIGSTOP), it is sent instead.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
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

SERVICE_POINTS = (
    "after-savepoint",  # of an upgrade
    "mid-record",  # the new file is there, the record that speaks of it is not
    "after-record",
    "after-end",  # the old revision has stopped, the new one has not begun
    "before-restored",  # an attempt has claimed the savepoint it was told to go on from; the record does not know
    "before-last-manifest",  # of a stop, or of draining
    "after-last-manifest",
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
    elif point in SERVICE_POINTS:
        _arm_service(point, pass_by)
    else:
        raise SystemExit(f"no such point: {point}")


def _arm_service(point: str, pass_by: Callable[[], None]) -> None:
    from streamproc.checkpoint.driver import CheckpointDriver
    from streamproc.service import registry
    from streamproc.service.hosted import HostedPipeline
    from streamproc.service.supervisor import PipelineSupervisor

    when, _, what = point.partition("-")

    def around(owner: Any, name: str, applies: Callable[..., bool] = lambda *_: True) -> None:
        original = getattr(owner, name)

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            applied = applies(*args)
            if applied and when == "before":
                pass_by()
            result = await original(*args, **kwargs)
            if applied and when == "after":
                pass_by()
            return result

        setattr(owner, name, wrapped)

    def write_file(path: Path, content: bytes) -> None:
        written(path, content)
        if path.name.endswith(".yaml" if when == "mid" else "record.json"):
            pass_by()

    match what:
        case "savepoint":
            around(HostedPipeline, "_upgrade_savepoint")
        case "record":
            written = vars(registry)["write_file"]
            vars(registry)["write_file"] = write_file
        case "end":
            around(PipelineSupervisor, "end")
        case "restored":
            around(HostedPipeline, "_restored", lambda it: it.wish.restore_from is not None)
        case "last-manifest":
            around(CheckpointDriver, "_create_manifest", lambda it, *_: it._kind in ("stop", "drain"))


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
