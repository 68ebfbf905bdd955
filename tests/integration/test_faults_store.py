"""A checkpoint store that fails now and then, is full, or refuses: jobs go on, wait or end, and nothing is lost."""

from __future__ import annotations

import errno
import random
import re
import resource
import shutil
import socket
import subprocess
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from state.failure import StoreRefused
from streamproc.checkpoint.driver import TooManyFailedCheckpoints
from streamproc.checkpoint.recovery import survey
from tests.faults.file_orders import FileOrders
from tests.faults.folder import fail_stores
from tests.faults.running import running
from tests.integration.job import Job

RESTART = "{strategy: backoff, initial: 20ms, max: 100ms}"


def orphans(orders: FileOrders) -> set[str]:
    """Stored files that no checkpoint refers to."""
    live = {file.name for manifest in survey(orders.store).manifests.values() for file in manifest.files()}
    return {name for name, _ in orders.store.list("files/")} - live


async def test_passing_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fifth call fails, before it did anything or after it did all."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    def fault(verb: str, name: str, done: bool) -> Exception | None:
        return TimeoutError(f"{verb} {name} took too long") if chance.random() < 0.1 else None

    orders = FileOrders(tmp_path, keep=3, restart=RESTART)
    with monkeypatch.context() as patch:
        fail_stores(patch, fault)
        async with running(orders.file) as run:
            for step in range(1, 11):
                orders.append(50)
                await run.until(lambda step=step: len(orders.copies()) == 50 * step)  # type: ignore[misc]
            await orders.finish(run)
            await run.until(lambda: len(orders.copies()) == 501)
            assert run.status.restarts < 10
    async with running(orders.file) as run:
        await run.checkpoints(2)
        await run.stop()
    assert orders.copies() == Counter(range(501))
    assert not orphans(orders)


@pytest.mark.parametrize(
    ("verb", "name"), [("create", "attempts/"), ("list", "chk-"), ("put", "files/"), ("create", "chk-00000002/m")]
)
async def test_a_store_that_refuses_is_fatal_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, name: str
) -> None:
    def fault(of: str, called: str, done: bool) -> Exception | None:
        return PermissionError(403, "Forbidden") if of == verb and called.startswith(name) else None

    orders = FileOrders(tmp_path, restart=RESTART)
    orders.append(10)
    fail_stores(monkeypatch, fault)
    async with running(orders.file) as run:
        result = await run.result()
    assert isinstance(result.failure, StoreRefused), result.failure
    assert "permission denied" in str(result.failure)
    assert name in str(result.failure)
    assert str(orders.stored("")).rstrip("/") in str(result.failure)
    assert run.status.restarts == 0


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Tmpfs]:
    """A small file system; skipped where none can be mounted."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield Tmpfs(mount)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.fixture(params=["injected", "tmpfs"])
def full(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Full:
    """A checkpoint store that can be full."""
    if request.param == "injected":
        return Injected(tmp_path, monkeypatch)
    found: Tmpfs = request.getfixturevalue("full_disk")
    return found


class Full:
    """A place that can be full."""

    store: Path

    def fill(self) -> None: ...
    def make_room(self) -> None: ...


class Injected(Full):
    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.store = folder / "checkpoints"
        self._full = False

        def fault(verb: str, name: str, done: bool) -> Exception | None:
            writes = verb in ("create", "put")
            return OSError(errno.ENOSPC, "No space left on device") if self._full and writes else None

        fail_stores(patch, fault)

    def fill(self) -> None:
        self._full = True

    def make_room(self) -> None:
        self._full = False


class Tmpfs(Full):
    def __init__(self, mount: Path) -> None:
        self.folder = mount
        self.store = mount / "checkpoints"
        self._filler = mount / "filler"

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    return

    def make_room(self) -> None:
        self._filler.unlink()


async def test_a_full_store(tmp_path: Path, full: Full) -> None:
    """Checkpoints fail and the job goes on; after the tolerated three it starts again, until there is room."""
    orders = FileOrders(tmp_path, keep=3, restart=RESTART, store=full.store)
    async with running(orders.file) as run:
        orders.append(100)
        await run.until(lambda: len(orders.copies()) == 100)
        full.fill()
        read_before = run.status.records_in
        orders.append(100)
        await run.until(lambda: run.told("checkpoint aborted"))
        await run.until(lambda: run.status.records_in >= read_before + 100)
        assert run.status.restarts == 0, "it goes on"
        await run.until(lambda: run.status.restarts >= 3)
        assert "No space left" in run.told("job failed, starting again")[-1]["reason"]
        assert len(run.told("checkpoint aborted")) == 4
        assert len(orders.copies()) == 100, "nothing is visible before its checkpoint"
        full.make_room()
        await run.until(lambda: len(orders.copies()) == 200)
        await orders.finish(run)
        await run.until(lambda: len(orders.copies()) == 201)
        assert set(orders.copies().values()) == {1}
        await run.stop()
    assert not orphans(orders)


async def test_a_store_that_is_away_for_a_while(tmp_path: Path) -> None:
    """As when its disk is unmounted under the job: an empty place is no reason to begin anew."""
    orders = FileOrders(tmp_path, keep=3, restart=RESTART)
    store, away = orders.stored(""), tmp_path / "away"
    async with running(orders.file) as run:
        orders.append(100)
        await run.until(lambda: len(orders.copies()) == 100)
        store.rename(away)
        orders.append(100)
        await run.until(lambda: run.status.restarts >= 3)
        assert "is not there any more" in run.status.message
        assert str(store) in run.status.message
        shutil.rmtree(store, ignore_errors=True)  # what is written where the disk belongs
        away.rename(store)
        await run.until(lambda: len(orders.copies()) == 200)
        await orders.finish(run)
        await run.until(lambda: len(orders.copies()) == 201)
        await run.stop()
    assert orders.copies() == Counter(range(201))


async def test_asked_to_stop_while_the_store_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Injected(tmp_path, monkeypatch)
    orders = FileOrders(tmp_path, keep=3, restart=RESTART)
    async with running(orders.file) as run:
        orders.append(100)
        await run.until(lambda: len(orders.copies()) == 100)
        store.fill()
        orders.append(100)
        assert (await run.stop()).status == "stopped"
        assert "No space left" in run.told("stopped without a last checkpoint")[0]["reason"]
    store.make_room()
    async with running(orders.file) as run:
        await run.until(lambda: len(orders.copies()) == 200)
        await run.stop()
    assert orders.copies() == Counter(range(200))


@pytest.mark.parametrize("call", ["put files/", "create chk-"])
async def test_a_store_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Checkpoints time out, saying for what they waited; the job goes on, and completes one when the store does."""
    hanging, released = [False], threading.Event()

    def hang(verb: str, name: str, done: bool) -> None:
        if hanging[0] and not done and f"{verb} {name}".startswith(call):
            released.wait(30)

    fail_stores(monkeypatch, hang)
    orders = FileOrders(tmp_path, keep=3, timeout="300ms")
    try:
        async with running(orders.file) as run:
            orders.append(100)
            await run.until(lambda: len(orders.copies()) == 100)
            hanging[0] = True
            orders.append(100)
            await run.until(lambda: len(run.told("checkpoint aborted")) >= 2)
            reason = run.told("checkpoint aborted")[-1]["reason"]
            assert reason.startswith("timed out; ")
            assert ("counts[0]" if "put" in call else "the store has") in reason
            await run.until(lambda: run.status.records_in == 200)
            hanging[0] = False
            released.set()
            await run.until(lambda: len(orders.copies()) == 200)
            await orders.finish(run)
            await run.stop()
    finally:
        released.set()
    assert set(orders.copies().values()) == {1}


@pytest.mark.parametrize("what", ["copies", "state"])
async def test_a_full_disk_under_results_or_local_state(tmp_path: Path, full_disk: Tmpfs, what: str) -> None:
    """The job starts again until there is room, and says which place is full."""
    orders = FileOrders(tmp_path, keep=3, restart=RESTART)
    (full_disk.folder / what).mkdir()
    (tmp_path / what).symlink_to(full_disk.folder / what)
    async with running(orders.file) as run:
        orders.append(100)
        await run.until(lambda: len(orders.copies()) == 100)
        await run.checkpoints(1)
        full_disk.fill()
        orders.append(1_000)
        await run.until(lambda: run.status.restarts >= 2)
        for entry in run.told("job failed, starting again"):
            assert "No space left on device" in entry["reason"]
            assert str(tmp_path / what) in entry["reason"] or "sink copies" in entry["reason"]
        assert not run.told("unexpected failure")
        full_disk.make_room()
        await run.until(lambda: len(orders.copies()) == 1_100)
        await orders.finish(run)
        await run.stop()
    assert set(orders.copies().values()) == {1}


@pytest.mark.parametrize("strategy", ["{strategy: fixed, attempts: 2, delay: 20ms}", "{strategy: none}"])
async def test_restarts_are_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    fail_stores(monkeypatch, lambda verb, name, done: ConnectionError("gone") if verb == "put" else None)
    orders = FileOrders(tmp_path, restart=strategy)
    orders.append(10)
    async with running(orders.file) as run:
        result = await run.result()
        assert isinstance(result.failure, TooManyFailedCheckpoints), result
        assert "4 checkpoints in a row have failed" in str(result.failure)
        assert "gone" in str(result.failure)
        assert run.status.restarts == (2 if "fixed" in strategy else 0)
        assert run.status.state == "failed"


async def test_asked_to_stop_between_two_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_stores(monkeypatch, lambda verb, name, done: ConnectionError("gone") if verb == "create" else None)
    orders = FileOrders(tmp_path, restart="{strategy: fixed, attempts: 9, delay: 1m}")
    async with running(orders.file) as run:
        await run.until(lambda: run.status.state == "restarting")
        assert "gone" in run.status.message
        assert (await run.stop()).status == "stopped"


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: neither state nor results nor checkpoints nor the log can be written, until they can."""
    orders = FileOrders(tmp_path, keep=3, restart=RESTART)
    orders.append(100)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = Job(tmp_path, orders.file, "--metrics-port", str(port))
    try:
        job.until(lambda: len(orders.copies()) == 100)
        _, hard = resource.prlimit(job.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(job.pid, resource.RLIMIT_FSIZE, (16, hard))
        orders.append(100)
        job.until(lambda: restarts(port) >= 3)
        assert len(orders.copies()) == 100
        resource.prlimit(job.pid, resource.RLIMIT_FSIZE, (hard, hard))
        job.until(lambda: len(orders.copies()) == 200)
        assert job.stop() == 0, job.log()
    finally:
        job.kill()
    assert orders.copies() == Counter(range(200))


def restarts(port: int) -> float:
    """As the metrics say."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found = re.search(r'^streamproc_restarts_total{pipeline="orders"} (\S+)$', answer.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])
