"""`checkpoints list|show|verify`: what is in a checkpoint store, read only.

A store holds one folder per pipeline; the URL may name the store or one such folder.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.table import Table

from state.failure import CorruptCheckpoint, Failure, NotInStore
from state.snapshot import StoredFile, verify
from state.store import CheckpointStore
from streamproc.checkpoint.manifest import Manifest, committed_name, manifest_name
from streamproc.commands.session import DONE, FAILED, Session, print_json, table_console

_MANIFEST: Final = re.compile(r"(.*/)?chk-(\d+)/manifest\.json")


class NoSuchCheckpoint(Failure):
    """Nothing there by that URL or number."""

    acts = "user"


@dataclass(frozen=True, slots=True)
class Found:
    """One checkpoint of a store: its manifest, or why it cannot be read. `folder` ends with a slash, or is empty."""

    folder: str
    number: int
    committed: bool
    manifest: Manifest | None
    fault: str | None

    @property
    def pipeline(self) -> str:
        """As the manifest says, or as the folder is called."""
        return self.manifest.pipeline if self.manifest else self.folder.rstrip("/")

    def files(self) -> list[StoredFile]:
        """Its distinct state files."""
        return list({file.name: file for file in self.manifest.files()}.values()) if self.manifest else []

    def as_json(self) -> dict[str, Any]:
        """One entry of `list --json`."""
        manifest = self.manifest
        return {
            "pipeline": self.pipeline,
            "checkpoint": self.number,
            "readable": manifest is not None,
            "fault": self.fault,
            "committed": self.committed,
            "kind": manifest.kind if manifest else None,
            "attempt": manifest.attempt if manifest else None,
            "created_ms": manifest.created_ms if manifest else None,
            "files": len(self.files()),
            "bytes": sum(file.size for file in self.files()),
        }


def list_all(session: Session, url: str, *, as_json: bool) -> int:
    """A line for each checkpoint."""
    found = _find(url)
    if as_json:
        print_json([checkpoint.as_json() for checkpoint in found], indent=2)
        return DONE
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("pipeline", "checkpoint", "kind", "attempt", "taken (UTC)", "files", "size", "state"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("checkpoint", "files", "size") else "left")
    for checkpoint in found:
        entry = checkpoint.as_json()
        table.add_row(
            checkpoint.pipeline,
            str(checkpoint.number),
            entry["kind"] or "?",
            str(entry["attempt"] or "?"),
            _utc(entry["created_ms"]),
            str(entry["files"]),
            _size(entry["bytes"]),
            _state(checkpoint),
        )
    table_console().print(table)
    return DONE


def show(session: Session, url: str, wanted: str, *, as_json: bool) -> int:
    """Everything one checkpoint holds. Raises NoSuchCheckpoint, CorruptCheckpoint."""
    found = _find(url)
    if wanted != "latest":
        found = [checkpoint for checkpoint in found if str(checkpoint.number) == wanted]
        if not found:
            raise NoSuchCheckpoint(f"there is no checkpoint {wanted} in {url}")
    if len({checkpoint.folder for checkpoint in found}) > 1:
        folders = ", ".join(sorted({checkpoint.folder.rstrip("/") for checkpoint in found}))
        raise NoSuchCheckpoint(f"{url} holds several pipelines: add one of {folders} to the URL")
    checkpoint = found[-1]
    manifest = checkpoint.manifest
    if manifest is None:
        raise CorruptCheckpoint(checkpoint.fault or "unreadable")
    if as_json:
        print_json(checkpoint.as_json() | _contents(manifest), indent=2)
        return DONE
    console = table_console()
    console.print(
        f"{manifest.pipeline}, checkpoint {manifest.checkpoint} ({manifest.kind}), {_state(checkpoint)}, "
        f"taken {_utc(manifest.created_ms)} UTC by attempt {manifest.attempt}",
        highlight=False,
    )
    console.print(_parts_table(manifest))
    return DONE


def verify_all(session: Session, url: str, *, as_json: bool) -> int:
    """Read everything; 1 when anything is missing, torn or altered."""
    store = CheckpointStore.open(url)
    seen: dict[str, str | None] = {}
    results = []
    for checkpoint in _find(url):
        faults = list(_faults(store, checkpoint, seen))
        results.append(checkpoint.as_json() | {"faults": faults})
        if not as_json:
            size = _size(sum(file.size for file in checkpoint.files()))
            verdict = "bad" if faults else f"good, {len(checkpoint.files())} files, {size}"
            print(f"{checkpoint.pipeline} checkpoint {checkpoint.number}: {verdict}", flush=True)
            for fault in faults:
                session.say(f"  {fault}")
    if as_json:
        print_json(results, indent=2)
    return FAILED if any(result["faults"] for result in results) else DONE


def _find(url: str) -> list[Found]:
    store = CheckpointStore.open(url)
    names = {name for name, _ in store.list()}
    found = [
        _read(store, names, match[1] or "", int(match[2])) for name in names if (match := _MANIFEST.fullmatch(name))
    ]
    if not found:
        raise NoSuchCheckpoint(f"there is no checkpoint in {store.shown}")
    return sorted(found, key=lambda checkpoint: (checkpoint.folder, checkpoint.number))


def _read(store: CheckpointStore, names: set[str], folder: str, number: int) -> Found:
    name = folder + manifest_name(number)
    committed = folder + committed_name(number) in names
    try:
        return Found(folder, number, committed, Manifest.from_bytes(store.read(name), name), None)
    except (CorruptCheckpoint, NotInStore) as failure:
        return Found(folder, number, committed, None, str(failure))


def _faults(store: CheckpointStore, checkpoint: Found, seen: dict[str, str | None]) -> Iterator[str]:
    """`seen`: stored file → its fault, if any; checkpoints share files."""
    if checkpoint.fault:
        yield checkpoint.fault
    for file in checkpoint.files():
        name = checkpoint.folder + file.name
        if name not in seen:
            seen[name] = _fault(store, StoredFile(name, file.sha256, file.size))
        if fault := seen[name]:
            yield fault


def _fault(store: CheckpointStore, file: StoredFile) -> str | None:
    with tempfile.TemporaryDirectory(prefix="streamproc-verify-") as folder:
        copy = Path(folder) / "file"
        try:
            store.get(file.name, copy)
            verify(store, file, copy)
        except (CorruptCheckpoint, NotInStore) as failure:
            return str(failure)
    return None


def _contents(manifest: Manifest) -> dict[str, Any]:
    return {
        "max_parallelism": manifest.max_parallelism,
        "sources": manifest.sources,
        "steps": {
            step: [
                {
                    "groups": [part.groups.first, part.groups.last],
                    "operator": part.describe,
                    "files": {
                        name: {"name": file.name, "sha256": file.sha256, "bytes": file.size}
                        for name, file in part.files.items()
                    },
                }
                for part in parts
            ]
            for step, parts in manifest.steps.items()
        },
        "sinks": manifest.sinks,
    }


def _parts_table(manifest: Manifest) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("part", "of", "holds"):
        table.add_column(column, overflow="fold")
    for source, splits in manifest.sources.items():
        for split, held in splits.items():
            table.add_row(f"source {source}", split, _brief(held))
    for step, parts in manifest.steps.items():
        for part in parts:
            size = _size(sum(file.size for file in part.files.values()))
            table.add_row(
                f"step {step}", f"key groups {part.groups.first}–{part.groups.last}", f"{len(part.files)} files, {size}"
            )
    for sink, prepared in manifest.sinks.items():
        table.add_row(f"sink {sink}", "output", f"{len(prepared)} prepared")
    return table


def _brief(held: Any) -> str:
    if not isinstance(held, dict):
        return str(held)
    return ", ".join(f"{key} {_brief(value)}" for key, value in held.items())


def _state(checkpoint: Found) -> str:
    if checkpoint.fault:
        return "unreadable"
    return "committed" if checkpoint.committed else "complete"


def _utc(ms: int | None) -> str:
    return "?" if ms is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ms // 1000))


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
