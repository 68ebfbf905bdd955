"""One contract for keyed state: whatever a program does, RocksDB answers as the memory model does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from state.backend import Block, StateBackend
from state.failure import StateError
from state.key_group import KeyGroupRange, range_of_subtask
from state.memory import MemoryBackend
from state.point import PointKey
from state.rocksdb import RocksBackend

MAX_PARALLELISM = 8
ALL = KeyGroupRange(0, MAX_PARALLELISM - 1)
NAMESPACES = [-(2**63), -1000, -1, 0, 1, 255, 256, 1_700_000_000_000, 2**63 - 1]
NAMES = ["slices", "slices_late", "a"]
FIRST, END = PointKey(-(2**63), 0, b""), PointKey(2**63 - 1, MAX_PARALLELISM, b"")
point_values = st.none() | st.binary(max_size=3) | st.integers(8_000, 9_000).map(lambda n: b"large" * n)
point_keys = st.tuples(st.sampled_from(NAMESPACES[:-1]), st.binary(max_size=3))


@dataclass(frozen=True)
class Kind:
    """How one backend is made; `directory` must not exist."""

    create: Callable[[Path, KeyGroupRange], StateBackend]
    open_restored: Callable[[Path, KeyGroupRange], StateBackend]
    restore_clipped: Callable[[Path, KeyGroupRange, list[Path]], StateBackend]


KINDS = {
    "memory": Kind(
        lambda _, groups: MemoryBackend(groups),
        MemoryBackend.open_restored,
        lambda _, groups, parts: MemoryBackend.restore_clipped(groups, parts),
    ),
    "rocksdb": Kind(RocksBackend.create, RocksBackend.open_restored, RocksBackend.restore_clipped),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def test_blocks_come_back_in_order_of_appending_with_negative_slices_first(kind: Kind, tmp_path: Path) -> None:
    backend = kind.create(tmp_path / "db", ALL)
    state = backend.blocks("slices")
    for namespace in (1000, -1000, 0):
        for value in (b"z", b"a"):
            state.append(namespace, ALL, value)

    assert state.namespaces() == [-1000, 0, 1000]
    assert [block.value for block in state.scan(0, ALL)] == [b"z", b"a"]
    state.delete(0)
    state.delete(77)
    assert state.namespaces() == [-1000, 1000]
    backend.close()


def test_scan_gives_the_blocks_that_touch_the_groups_and_says_which_rows_count(kind: Kind, tmp_path: Path) -> None:
    backend = kind.create(tmp_path / "db", ALL)
    state = backend.blocks("slices")
    state.append(0, KeyGroupRange(0, 3), b"low")
    state.append(0, KeyGroupRange(2, 5), b"middle")
    state.append(0, KeyGroupRange(6, 7), b"high")

    wanted = KeyGroupRange(3, 5)
    blocks = list(state.scan(0, wanted))

    assert [(block.value, block.filter_for(wanted)) for block in blocks] == [
        (b"low", KeyGroupRange(3, 3)),
        (b"middle", KeyGroupRange(3, 5)),
    ]
    assert blocks[1].filter_for(ALL) is None
    backend.close()


def test_old_blocks_can_be_read_while_new_ones_take_their_place(kind: Kind, tmp_path: Path) -> None:
    low, high = KeyGroupRange(0, 3), KeyGroupRange(4, 7)
    backend = kind.create(tmp_path / "db", ALL)
    state = backend.blocks("slices")
    for value in (b"a", b"b"):
        state.append(0, ALL, value)
        state.append(1, ALL, value)

    state.replace(0, ((groups, b"".join(block.value for block in state.scan(0, groups))) for groups in (low, high)))
    state.append(0, low, b"c")

    assert [(block.groups, block.value) for block in state.scan(0, ALL)] == [(low, b"ab"), (high, b"ab"), (low, b"c")]
    assert [block.value for block in state.scan(1, ALL)] == [b"a", b"b"]
    state.replace(0, [])
    assert state.namespaces() == [1]
    backend.close()


@pytest.mark.parametrize("groups", [KeyGroupRange(3, 4), KeyGroupRange(5, 4), KeyGroupRange(0, 8)])
def test_a_block_outside_the_owned_groups_is_refused(kind: Kind, tmp_path: Path, groups: KeyGroupRange) -> None:
    backend = kind.create(tmp_path / "db", KeyGroupRange(4, 7))
    with pytest.raises(ValueError, match="is not a part of"):
        backend.blocks("slices").append(0, groups, b"")
    backend.close()


def test_a_snapshot_holds_what_was_appended_before_it_and_nothing_after(kind: Kind, tmp_path: Path) -> None:
    backend = kind.create(tmp_path / "db", ALL)
    backend.blocks("slices").append(5, ALL, b"before")
    snapshot = backend.snapshot(tmp_path / "chk" / "1")
    backend.blocks("slices").append(5, ALL, b"after")
    backend.blocks("slices").delete(5)
    backend.close()

    assert sorted(path.name for path in snapshot.directory.iterdir()) == list(snapshot.files)
    restored = kind.open_restored(snapshot.directory, ALL)
    restored.blocks("slices").append(5, ALL, b"later")
    assert [block.value for block in restored.blocks("slices").scan(5, ALL)] == [b"before", b"later"]
    restored.close()


def test_rows_count_once_when_scaled_out_and_in_again(kind: Kind, tmp_path: Path) -> None:
    """A block is opaque, so both halves keep it; the clip says which half each may count."""
    one = kind.create(tmp_path / "one", ALL)
    one.blocks("slices").append(0, ALL, b"rows of all groups")
    parts = [one.snapshot(tmp_path / "chk-1").directory]
    one.close()

    halves = [range_of_subtask(index, 2, MAX_PARALLELISM) for index in range(2)]
    snapshots = []
    for index, groups in enumerate(halves):
        half = kind.restore_clipped(tmp_path / f"half-{index}", groups, parts)
        assert [block.filter_for(groups) for block in half.blocks("slices").scan(0, groups)] == [groups]
        snapshots.append(half.snapshot(tmp_path / f"chk-2-{index}").directory)
        half.close()

    whole = kind.restore_clipped(tmp_path / "whole", ALL, snapshots)
    assert [block.filter_for(ALL) for block in whole.blocks("slices").scan(0, ALL)] == halves
    whole.close()


def test_entries_are_ordered_by_namespace_then_group_then_key(kind: Kind, tmp_path: Path) -> None:
    backend = kind.create(tmp_path / "db", ALL)
    timers = backend.points("timers")
    keys = [
        PointKey(-5, 7, b"a"),
        PointKey(0, 0, b""),
        PointKey(0, 0, b"\0"),
        PointKey(0, 1, b"a"),
        PointKey(9, 0, b"z"),
    ]
    timers.write(dict.fromkeys(reversed(keys), b"1"))
    backend.points("timers_b").write({keys[0]: b"another name"})
    backend.blocks("timers").append(0, ALL, b"a block")

    assert [key for key, _ in timers.scan(FIRST, END, 100)] == keys
    assert [key for key, _ in timers.scan(keys[1], keys[4], 2)] == keys[1:3]
    timers.write({keys[1]: None, keys[2]: b"2", PointKey(3, 3, b"never there"): None})
    assert timers.get([keys[2], keys[1], keys[2], keys[0]]) == [b"2", None, b"2", b"1"]
    assert timers.get([]) == []
    backend.close()


def test_an_entry_of_a_group_that_is_not_owned_is_refused(kind: Kind, tmp_path: Path) -> None:
    backend = kind.create(tmp_path / "db", KeyGroupRange(4, 7))
    with pytest.raises(ValueError, match="is not one of"):
        backend.points("a").write({PointKey(0, 4, b"good"): b"", PointKey(0, 3, b"bad"): b""})
    assert backend.points("a").scan(FIRST, END, 100) == []
    backend.close()


def test_a_snapshot_holds_the_entries_written_before_it(kind: Kind, tmp_path: Path) -> None:
    backend = kind.create(tmp_path / "db", ALL)
    gone, changed = PointKey(0, 1, b"gone"), PointKey(0, 2, b"changed")
    backend.points("a").write({gone: b"1", changed: b"1"})
    snapshot = backend.snapshot(tmp_path / "chk" / "1")
    backend.points("a").write({gone: None, changed: b"2"})
    backend.close()

    restored = kind.open_restored(snapshot.directory, ALL)
    assert restored.points("a").scan(FIRST, END, 100) == [(gone, b"1"), (changed, b"1")]
    restored.close()


def test_restoring_what_is_not_there_fails_and_makes_no_empty_state(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot open"):
        kind.open_restored(tmp_path / "nowhere", ALL)
    with pytest.raises(StateError, match="cannot open"):
        kind.restore_clipped(tmp_path / "db", ALL, [tmp_path / "nowhere"])


class ModelEqualsRocksDB(RuleBasedStateMachine):
    """Random programs over one subtask at a time: append, scan, replace, delete, write and delete entries,
    restore, rescale out and in."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="state-contract-"))
        self.paths = self._fresh_paths()
        self.backends: dict[str, list[StateBackend]] = {}
        self.ranges = [ALL]

    def _fresh_paths(self) -> Iterator[Path]:
        count = 0
        while True:
            count += 1
            yield self.directory / str(count)

    @initialize()
    def start(self) -> None:
        self.backends = {name: [kind.create(next(self.paths), ALL)] for name, kind in KINDS.items()}

    @rule(
        data=st.data(),
        name=st.sampled_from(NAMES),
        namespace=st.sampled_from(NAMESPACES),
        value=st.binary(max_size=20) | st.just(b"large" * 10_000),
    )
    def append(self, data: st.DataObject, name: str, namespace: int, value: bytes) -> None:
        subtask = data.draw(st.integers(0, len(self.ranges) - 1))
        owned = self.ranges[subtask]
        first = data.draw(st.integers(owned.first, owned.last))
        groups = KeyGroupRange(first, data.draw(st.integers(first, owned.last)))
        for backends in self.backends.values():
            backends[subtask].blocks(name).append(namespace, groups, value)

    @rule(data=st.data(), name=st.sampled_from(NAMES), namespace=st.sampled_from(NAMESPACES))
    def delete(self, data: st.DataObject, name: str, namespace: int) -> None:
        subtask = data.draw(st.integers(0, len(self.ranges) - 1))
        for backends in self.backends.values():
            backends[subtask].blocks(name).delete(namespace)

    @rule(data=st.data(), name=st.sampled_from(NAMES), namespace=st.sampled_from(NAMESPACES))
    def replace(self, data: st.DataObject, name: str, namespace: int) -> None:
        subtask = data.draw(st.integers(0, len(self.ranges) - 1))
        values = data.draw(st.lists(st.binary(max_size=20), max_size=3))
        for backends in self.backends.values():
            backends[subtask].blocks(name).replace(namespace, [(self.ranges[subtask], value) for value in values])

    @rule(name=st.sampled_from(NAMES), namespace=st.sampled_from(NAMESPACES), a=st.integers(0, 7), b=st.integers(0, 7))
    def scan_a_bucket(self, name: str, namespace: int, a: int, b: int) -> None:
        wanted = KeyGroupRange(min(a, b), max(a, b))
        seen: list[list[list[Block]]] = [
            [list(backend.blocks(name).scan(namespace, wanted)) for backend in backends]
            for backends in self.backends.values()
        ]
        assert seen[0] == seen[1]

    @rule(
        data=st.data(),
        name=st.sampled_from(NAMES),
        changes=st.dictionaries(point_keys, point_values, max_size=8),
    )
    def write_entries(self, data: st.DataObject, name: str, changes: dict[tuple[int, bytes], bytes | None]) -> None:
        subtask = data.draw(st.integers(0, len(self.ranges) - 1))
        owned = self.ranges[subtask]
        groups = [data.draw(st.integers(owned.first, owned.last)) for _ in changes]
        placed = {
            PointKey(namespace, group, key): value
            for group, ((namespace, key), value) in zip(groups, changes.items(), strict=True)
        }
        for backends in self.backends.values():
            backends[subtask].points(name).write(placed)

    @rule(name=st.sampled_from(NAMES), bounds=st.tuples(point_keys, point_keys), limit=st.integers(0, 5))
    def scan_and_get_entries(self, name: str, bounds: tuple[tuple[int, bytes], tuple[int, bytes]], limit: int) -> None:
        first, end = sorted(PointKey(namespace, len(key), key) for namespace, key in bounds)
        seen = [
            [
                (points.scan(first, end, limit), points.get([first, end]))
                for points in (backend.points(name) for backend in backends)
            ]
            for backends in self.backends.values()
        ]
        assert seen[0] == seen[1]

    @rule()
    def restore(self) -> None:
        for kind_name, kind in KINDS.items():
            old = self.backends[kind_name]
            snapshots = [backend.snapshot(next(self.paths)) for backend in old]
            for backend in old:
                backend.close()
            self.backends[kind_name] = [
                kind.open_restored(snapshot.directory, groups)
                for snapshot, groups in zip(snapshots, self.ranges, strict=True)
            ]

    @rule(parallelism=st.integers(1, 3))
    def rescale(self, parallelism: int) -> None:
        ranges = [range_of_subtask(index, parallelism, MAX_PARALLELISM) for index in range(parallelism)]
        for kind_name, kind in KINDS.items():
            old = self.backends[kind_name]
            parts = [backend.snapshot(next(self.paths)).directory for backend in old]
            for backend in old:
                backend.close()
            self.backends[kind_name] = [
                kind.restore_clipped(
                    next(self.paths),
                    groups,
                    [part for part, was in zip(parts, self.ranges, strict=True) if was.intersects(groups)],
                )
                for groups in ranges
            ]
        self.ranges = ranges

    @invariant()
    def everything_is_equal(self) -> None:
        seen = [
            [
                (name, namespace, list(backend.blocks(name).scan(namespace, ALL)))
                for backend in backends
                for name in NAMES
                for namespace in backend.blocks(name).namespaces()
            ]
            for backends in self.backends.values()
        ]
        assert not seen or seen[0] == seen[1]
        entries = [
            [backend.points(name).scan(FIRST, END, 1000) for backend in backends for name in NAMES]
            for backends in self.backends.values()
        ]
        assert not entries or entries[0] == entries[1]

    def teardown(self) -> None:
        for backends in self.backends.values():
            for backend in backends:
                backend.close()
        shutil.rmtree(self.directory)


TestModelEqualsRocksDB = ModelEqualsRocksDB.TestCase
TestModelEqualsRocksDB.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
