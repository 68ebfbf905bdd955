"""A checkpoint store whose folder fails when told to, below everything the product does about failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from state.store import CheckpointStore
from state.store_local import LocalFolder

# (verb, name, whether it has been done) → what goes wrong, if anything: before the call, or with its answer.
Fault = Callable[[str, str, bool], Exception | None]
T = TypeVar("T")


class FaultyFolder:
    """A local folder that asks `fault` before and after every call."""

    def __init__(self, folder: LocalFolder, fault: Fault) -> None:
        self._folder = folder
        self._fault = fault

    def read(self, name: str) -> bytes:
        return self._do("read", name, lambda: self._folder.read(name))

    def create(self, name: str, content: bytes) -> None:
        self._do("create", name, lambda: self._folder.create(name, content))

    def put(self, name: str, source: Path) -> None:
        self._do("put", name, lambda: self._folder.put(name, source))

    def get(self, name: str, target: Path) -> None:
        self._do("get", name, lambda: self._folder.get(name, target))

    def size(self, name: str) -> int | None:
        return self._do("size", name, lambda: self._folder.size(name))

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        return self._do("list", prefix, lambda: iter(sorted(self._folder.list(prefix))))

    def delete(self, name: str) -> None:
        self._do("delete", name, lambda: self._folder.delete(name))

    def sweep(self, age_seconds_min: float) -> int:
        return self._do("sweep", "", lambda: self._folder.sweep(age_seconds_min))

    def _do(self, verb: str, name: str, act: Callable[[], T]) -> T:
        if (error := self._fault(verb, name, False)) is not None:
            raise error
        result = act()
        if (error := self._fault(verb, name, True)) is not None:
            raise error
        return result


def fail_stores(patch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Have every checkpoint store that is opened from now on be a folder that fails so. Pauses between tries are left
    out."""

    def opened(url: str, folder: str = "") -> CheckpointStore:
        root = Path(url.removeprefix("file:")) / folder
        return CheckpointStore(FaultyFolder(LocalFolder(root), fault), f"file:{root}", sleep=lambda _: None)

    patch.setattr(CheckpointStore, "open", opened)
