"""The keyed state of one step in one subtask through its checkpoints: a local cut, its upload, what is stored.

Only files of the last completed checkpoint are taken as stored: those of an aborted one may be collected any time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from operators.element import CheckpointId
from operators.operator import Operator
from state.backend import LocalSnapshot, StateBackend
from state.key_group import KeyGroupRange
from state.snapshot import StoredFile
from streamproc.checkpoint.manifest import file_entry


class SnapshotUploader(Protocol):
    """Makes a local cut of a state backend durable (blocking: called on a worker thread)."""

    def upload(
        self, snapshot: LocalSnapshot, known: Mapping[str, StoredFile], checkpoint: CheckpointId
    ) -> dict[str, StoredFile]:
        """Upload what `known` does not have; where each file is now."""


class Cut(NamedTuple):
    """State as of a barrier: what operators say in few words, and the files of the backend."""

    operators: Mapping[str, Any]
    snapshot: LocalSnapshot


@dataclass(slots=True)
class KeyedState:
    """The state backend of one stateful step in this subtask, and what of it is already stored."""

    step: str
    describe: str
    backend: StateBackend
    directory: Path
    groups: KeyGroupRange
    stored: dict[str, StoredFile] = field(default_factory=dict)  # of the last completed checkpoint
    _uploaded: dict[CheckpointId, dict[str, StoredFile]] = field(default_factory=dict)

    def cut(self, checkpoint: CheckpointId, operators: Iterable[Operator]) -> Cut:
        """Between batches; blocks. `operators`: those of the step."""
        said: Mapping[str, Any] = {}
        for operator in operators:
            said = {**said, **operator.prepare_snapshot()}
        return Cut(said, self.backend.snapshot(self.directory / f"cut-{checkpoint}"))

    def upload(self, cut: Cut, checkpoint: CheckpointId, uploader: SnapshotUploader) -> dict[str, StoredFile]:
        """Make a cut durable, and remove it here; blocks."""
        try:
            return uploader.upload(cut.snapshot, self.stored, checkpoint)
        finally:
            shutil.rmtree(cut.snapshot.directory, ignore_errors=True)

    def acknowledged(self, checkpoint: CheckpointId, cut: Cut, files: dict[str, StoredFile]) -> dict[str, Any]:
        """The step's part of the manifest: `files` are where the cut is."""
        self._uploaded[checkpoint] = files
        return {
            "describe": self.describe,
            "groups": [self.groups.first, self.groups.last],
            "operator": cut.operators,
            "files": {name: file_entry(file) for name, file in files.items()},
        }

    def completed(self, checkpoint: CheckpointId) -> None:
        """The next increment is built on this checkpoint."""
        if checkpoint in self._uploaded:
            self.stored = self._uploaded[checkpoint]
            self._uploaded = {later: files for later, files in self._uploaded.items() if later > checkpoint}
