"""What is wanted survives: a write that is cut short anywhere leaves the old wish or the new one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from streamproc.service.registry import (
    REVISIONS_KEPT,
    Damaged,
    DirectoryInUse,
    DirectoryUnusable,
    Entry,
    Record,
    Registry,
    sha256_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALLS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir")


def wish(yaml: bytes, *, revision: int = 1, **said: Any) -> Record:
    return Record(name="shop", revision=revision, yaml_sha256=sha256_of(yaml), created_at=NOW, updated_at=NOW, **said)


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kill at the so-many-th call that changes the disk; a write has then written half of what it was given."""
    count = 0

    def dying(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > number:
                raise Killed
            if count == number:
                if name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise Killed
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, dying(name, getattr(os, name)))
        yield


def reopened(directory: Path) -> Entry | Damaged | None:
    registry = Registry(directory)
    try:
        return registry.load().get("shop")
    finally:
        registry.close()


@pytest.mark.parametrize("change", ["create", "write", "revise", "forget", "replace"])
def test_every_prefix_of_a_change_leaves_the_old_or_the_new(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = b"version: 1\n", b"version: 1 # second\n"
    old: Entry | Damaged | None = None if change == "create" else Entry(wish(first), first)
    new = {
        "create": Entry(wish(first), first),
        "write": Entry(wish(first, wanted="stopped"), first),
        "revise": Entry(wish(second, revision=2), second),
        "forget": None,
        "replace": Entry(wish(second), second),
    }[change]
    if change == "replace":
        old = Damaged("record.json is damaged: Invalid JSON: EOF while parsing an object at line 1 column 1")

    def apply(registry: Registry) -> None:
        if change == "create":
            registry.create(wish(first), first)
        elif change == "replace":
            registry.create(wish(second), second)
        elif change == "forget":
            registry.forget("shop")
        else:
            assert new is not None
            registry.write(new.record, new.yaml if change == "revise" else None)

    seen = []
    for number in range(1, 100):
        directory = tmp_path / str(number)
        registry = Registry(directory)
        if change != "create":
            registry.create(wish(first), first)
        if change == "replace":
            (directory / "pipelines/shop/record.json").write_bytes(b"{")
        try:
            with killed_at(number, monkeypatch):
                apply(registry)
        except Killed:
            registry.close()
            seen.append(reopened(directory))
        else:
            registry.close()
            assert reopened(directory) == new
            break
    assert len(seen) > 2
    assert all(found in (old, new) for found in seen)
    assert seen[0] == old
    assert seen == sorted(seen, key=lambda found: found == new), "once it is the new one it stays so"
    # And whatever was left behind is in nobody's way.
    for number in range(1, len(seen) + 1):
        registry = Registry(tmp_path / str(number))
        registry.create(wish(second, revision=7), second)
        assert registry.load() == {"shop": Entry(wish(second, revision=7), second)}
        registry.close()


def test_the_last_revisions_are_kept(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.create(wish(b"1"), b"1")
    for revision in range(2, 16):
        yaml = str(revision).encode()
        registry.write(wish(yaml, revision=revision), yaml)
    kept = sorted(int(path.stem) for path in (tmp_path / "pipelines/shop").glob("*.yaml"))
    assert kept == list(range(16 - REVISIONS_KEPT, 16))
    registry.close()


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("record.json", b'{"version": 1, "name": "shop"', "record.json is damaged"),
        ("record.json", b'{"version": 2}', "record.json is damaged: version"),
        ("record.json", None, "record.json cannot be read: No such file or directory"),
        ("000001.yaml", b"version: 1 # edited", "000001.yaml is not what was given"),
        ("000001.yaml", None, "000001.yaml cannot be read"),
    ],
)
def test_a_damaged_pipeline_is_told_and_others_are_not_touched(
    file: str, content: bytes | None, reason: str, tmp_path: Path
) -> None:
    registry = Registry(tmp_path)
    registry.create(wish(b"x"), b"x")
    other = wish(b"y").model_copy(update={"name": "other"})
    registry.create(other, b"y")
    path = tmp_path / "pipelines/shop" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    loaded = registry.load()
    registry.close()
    damaged = loaded["shop"]
    assert isinstance(damaged, Damaged)
    assert damaged.reason.startswith(reason)
    assert loaded["other"] == Entry(other, b"y")


def test_unknown_fields_are_damage_not_ignored(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.create(wish(b"x"), b"x")
    path = tmp_path / "pipelines/shop/record.json"
    path.write_text(path.read_text().replace('"wanted"', '"wnated"'))
    loaded = registry.load()["shop"]
    registry.close()
    assert isinstance(loaded, Damaged)
    assert "wnated" in loaded.reason


def test_a_second_service_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    first = Registry(tmp_path)
    with pytest.raises(DirectoryInUse, match="another service uses"):
        Registry(tmp_path)
    first.close()
    Registry(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_a_clear_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryUnusable, match="cannot be used"):
        Registry(tmp_path / "file")
