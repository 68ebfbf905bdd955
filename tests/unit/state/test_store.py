"""The checkpoint store: whole or absent, exactly one creator, failures that say who acts."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from state.failure import AlreadyExists, NotInStore, StateError, StoreRefused, StoreUnavailable
from state.store import CheckpointStore
from state.store_local import LocalFolder


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointStore:
    if request.param == "file":
        return CheckpointStore.open(f"file://{tmp_path}/store")
    return CheckpointStore.open(f"memory://{uuid.uuid4()}/store")


def test_what_was_created_is_read_listed_and_deleted(store: CheckpointStore, tmp_path: Path) -> None:
    assert store.list() == []
    assert not store.exists("chk-1/manifest.json")
    store.create("chk-1/manifest.json", b"{}")
    store.create("chk-12/manifest.json", b"{...}")
    store.create("claim-1", b"")
    (tmp_path / "local").write_bytes(b"rows")
    store.put("files/1-1/ab", tmp_path / "local")

    assert store.read("chk-1/manifest.json") == b"{}"
    assert store.list() == [
        ("chk-1/manifest.json", 2),
        ("chk-12/manifest.json", 5),
        ("claim-1", 0),
        ("files/1-1/ab", 4),
    ]
    assert store.list("chk-1") == [("chk-1/manifest.json", 2), ("chk-12/manifest.json", 5)]
    assert store.list("chk-1/") == [("chk-1/manifest.json", 2)]
    assert store.list("nothing/here") == []
    store.get("files/1-1/ab", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == b"rows"

    store.delete("files/1-1/ab")
    store.delete("files/1-1/ab")
    assert store.list("files/") == []
    assert store.exists("claim-1")
    assert not store.exists("chk-1")


def test_a_name_is_created_once(store: CheckpointStore) -> None:
    store.create("claim", b"ours")
    with pytest.raises(AlreadyExists):
        store.create("claim", b"theirs")
    assert store.read("claim") == b"ours"


def test_what_is_missing_says_so(store: CheckpointStore, tmp_path: Path) -> None:
    with pytest.raises(NotInStore, match="chk-1/manifest"):
        store.read("chk-1/manifest.json")
    with pytest.raises(NotInStore):
        store.get("files/1-1/ab", tmp_path / "copy")
    with pytest.raises(StateError, match="gone"):
        store.put("files/1-1/ab", tmp_path / "no such file")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../b", "a//b", ".tmp-1", "a/", "a b", "a\n", "x" * 600])
def test_names_that_could_leave_the_store_are_refused(store: CheckpointStore, name: str) -> None:
    with pytest.raises(StoreRefused):
        store.create(name, b"")
    with pytest.raises(StoreRefused):
        store.read(name)


def test_put_again_is_harmless_and_mends_a_torn_file(store: CheckpointStore, tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"content")
    (tmp_path / "torn").write_bytes(b"con")
    store.put("files/1-1/ab", tmp_path / "torn")
    for _ in range(2):
        store.put("files/1-1/ab", tmp_path / "whole")
    assert store.read("files/1-1/ab") == b"content"


@pytest.mark.parametrize("url", ["{}", "file:{}", "file://{}"])
def test_ways_to_name_a_folder(tmp_path: Path, url: str) -> None:
    CheckpointStore.open(url.format(tmp_path / "store")).create("name", b"1")
    assert (tmp_path / "store" / "name").read_bytes() == b"1"


def test_relative_folders_are_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CheckpointStore.open("file:.streamproc/checkpoints").create("name", b"1")
    assert (tmp_path / ".streamproc" / "checkpoints" / "name").exists()


@pytest.mark.parametrize("url", ["", "file:", "file://host/path", "s3:bucket", "nosuchthing://bucket/x"])
def test_urls_that_mean_nothing_are_refused(url: str) -> None:
    with pytest.raises(StoreRefused):
        CheckpointStore.open(url)


def test_secrets_in_a_url_are_never_printed() -> None:
    with pytest.raises(StoreRefused) as refused:
        CheckpointStore.open("nosuchthing://user:hunter2@host/path?token=t0ps3cret")
    assert "host/path" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "t0ps3cret" not in str(refused.value)


def test_deleting_the_last_file_of_a_folder_removes_the_folder(tmp_path: Path) -> None:
    store = CheckpointStore.open(str(tmp_path))
    store.create("files/1-1/ab", b"")
    store.create("files/1-2/cd", b"")
    store.delete("files/1-1/ab")
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["1-2"]


def test_leftovers_of_killed_writers_are_not_listed_and_are_swept_when_old(tmp_path: Path) -> None:
    store = CheckpointStore.open(str(tmp_path))
    store.create("name", b"1")
    (tmp_path / ".tmp-123-abc").write_bytes(b"half")

    assert store.list() == [("name", 1)]
    assert store.sweep() == 0
    os.utime(tmp_path / ".tmp-123-abc", (0, 0))
    assert store.sweep() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


class FaultyFolder(LocalFolder):
    """Raises what it is told before doing the thing, or after it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.calls = 0

    def _around(self, act: Callable[[], None]) -> None:
        self.calls += 1
        if self.before:
            raise self.before.pop(0)
        act()
        if self.after:
            raise self.after.pop(0)

    def create(self, name: str, content: bytes) -> None:
        self._around(lambda: LocalFolder.create(self, name, content))


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyFolder:
    return FaultyFolder(tmp_path / "store")


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def faulty_store(faulty: FaultyFolder, pauses: list[float]) -> CheckpointStore:
    return CheckpointStore(faulty, "file:faulty", sleep=pauses.append)


def test_passing_errors_are_tried_three_times(
    faulty_store: CheckpointStore, faulty: FaultyFolder, pauses: list[float]
) -> None:
    faulty.before = [TimeoutError(), ConnectionResetError()]
    faulty_store.create("name", b"1")
    assert (faulty.calls, pauses) == (3, [0.1, 0.5])

    faulty.before = [OSError(errno.EIO, "bad")] * 3
    with pytest.raises(StoreUnavailable, match=r"cannot create 'other' in checkpoint store file:faulty: .*bad"):
        faulty_store.create("other", b"1")
    assert faulty.calls == 6


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (PermissionError(errno.EACCES, "no"), StoreRefused),
        (OSError(errno.EROFS, "no"), StoreRefused),
        (OSError(errno.ENOSPC, "full"), StoreUnavailable),
        (OSError(errno.EDQUOT, "full"), StoreUnavailable),
    ],
)
def test_what_trying_again_at_once_does_not_mend_is_not_tried_again(
    faulty_store: CheckpointStore, faulty: FaultyFolder, error: OSError, failure: type[Exception]
) -> None:
    faulty.before = [error]
    with pytest.raises(failure):
        faulty_store.create("name", b"1")
    assert faulty.calls == 1


def test_a_create_whose_answer_was_lost_has_succeeded(faulty_store: CheckpointStore, faulty: FaultyFolder) -> None:
    faulty.after = [TimeoutError()]
    faulty_store.create("name", b"ours")
    assert faulty.calls == 2

    LocalFolder.create(faulty, "taken", b"theirs")
    faulty.before = [TimeoutError()]
    with pytest.raises(AlreadyExists):
        faulty_store.create("taken", b"ours")


def test_our_own_defects_are_not_blamed_on_the_store(faulty_store: CheckpointStore, faulty: FaultyFolder) -> None:
    faulty.before = [TypeError("defect")]
    with pytest.raises(TypeError):
        faulty_store.create("name", b"1")


def test_a_file_where_a_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StoreRefused):
        CheckpointStore.open(str(tmp_path / "store")).create("name", b"1")


def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    was_root = os.geteuid() == 0
    if was_root:  # root may write anywhere
        os.seteuid(65_534)
    try:
        with pytest.raises(StoreRefused, match="permission denied"):
            CheckpointStore.open(str(tmp_path / "store")).create("name", b"1")
    finally:
        if was_root:
            os.seteuid(0)


def test_a_write_that_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for a full disk; it needs a process of its own."""
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    program = f"""
import resource
from pathlib import Path
from state.failure import StoreUnavailable
from state.store import CheckpointStore

store = CheckpointStore.open({str(tmp_path / "store")!r})
large = Path({str(tmp_path / "large")!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
for write in (lambda: store.create("a/created", bytes(1 << 20)), lambda: store.put("b/put", large)):
    try:
        write()
    except StoreUnavailable as error:
        print(error)
store.create("small", b"still works")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("File too large") == 2, done.stderr
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["small"]


RACER = """
import sys
from state.failure import AlreadyExists
from state.store import CheckpointStore

store = CheckpointStore.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
wins = []
for number in range(50):
    try:
        store.create(f"race-{number}/manifest.json", sys.argv[2].encode() * 100_000)
        wins.append(number)
    except AlreadyExists:
        pass
print(wins, flush=True)
"""


@pytest.fixture
def racers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-c", RACER, str(tmp_path / "store")]
    processes = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in "ab"
    ]
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_of_two_processes_racing_to_create_exactly_one_wins(
    racers: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    for process in racers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in racers:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    store = CheckpointStore.open(str(tmp_path / "store"))
    # Meanwhile a reader sees whole files only.
    while any(process.poll() is None for process in racers):
        assert {size for _, size in store.list()} <= {100_000}
    wins = [process.communicate(timeout=60)[0].strip("[]\n").split(", ") for process in racers]

    won = [{int(number) for number in numbers if number} for numbers in wins]
    assert won[0] | won[1] == set(range(50))
    assert not won[0] & won[1]
    for name, numbers in zip("ab", won, strict=True):
        for number in numbers:
            assert store.read(f"race-{number}/manifest.json") == name.encode() * 100_000
