"""A checkpoint's manifest: everything needed to go on from it, as one JSON file with its own checksum.

Where things are in a checkpoint store, below `<pipeline>/`:

    chk-00000012/manifest.json    its existence is the commit of checkpoint 12
    chk-00000012/committed        the sinks have committed too; recovery need not do it again
    chk-00000012/savepoint        it is never removed by the job (created ahead of the manifest); says `upgrade` where
                                  nobody but an upgrade has asked for it
    attempts/00000003             a claim: attempt 3 has begun
    attempts/00000003-restored    and this is the checkpoint it goes on from
    files/3-12/abcd…              state files, by the upload (attempt 3, checkpoint 12) and their sha256
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from operators.connector import Committable
from operators.element import CheckpointId
from state.failure import CorruptCheckpoint, Failure
from state.key_group import KeyGroupRange
from state.snapshot import StoredFile
from streamproc.observability.ledger import StepLedger

VERSION: Final = 1
Kind = Literal["periodic", "savepoint", "stop", "drain", "finished"]
Asker = Literal["user", "upgrade"]  # of a savepoint

NOTHING_YET: Final[Mapping[str, StepLedger]] = {}  # the ledger before the first row

_CHECKPOINT = re.compile(r"chk-(\d+)/(manifest\.json|committed|savepoint)")
_ATTEMPT = re.compile(r"attempts/(\d+)(-restored)?")


def manifest_name(checkpoint: int) -> str:
    """Name in the store."""
    return f"chk-{checkpoint:08d}/manifest.json"


def committed_name(checkpoint: int) -> str:
    """Name in the store."""
    return f"chk-{checkpoint:08d}/committed"


def savepoint_name(checkpoint: int) -> str:
    """Name in the store."""
    return f"chk-{checkpoint:08d}/savepoint"


def savepoint_mark(by: Asker) -> bytes:
    """What the mark of a savepoint holds."""
    return b"" if by == "user" else by.encode()


def attempt_name(attempt: int) -> str:
    """Name in the store."""
    return f"attempts/{attempt:08d}"


def restored_name(attempt: int) -> str:
    """Name in the store."""
    return f"{attempt_name(attempt)}-restored"


def checkpoint_of(name: str) -> CheckpointId | None:
    """The checkpoint that a manifest or a mark called `name` belongs to."""
    match = _CHECKPOINT.fullmatch(name)
    return CheckpointId(int(match[1])) if match else None


def attempt_of(name: str) -> int | None:
    """The attempt that `name` belongs to."""
    match = _ATTEMPT.fullmatch(name)
    return int(match[1]) if match else None


class NewerRelease(Failure):
    """A newer release has gone on from here. To pass over what it did would write its results again."""

    acts = "user"


@dataclass(frozen=True, slots=True)
class StepPart:
    """State of one subtask of a stateful step."""

    describe: str
    groups: KeyGroupRange
    operator: Mapping[str, Any]
    files: Mapping[str, StoredFile]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One completed checkpoint."""

    pipeline: str
    checkpoint: CheckpointId
    attempt: int
    created_ms: int
    kind: Kind
    max_parallelism: int
    sources: Mapping[str, Mapping[str, Any]]  # source → split → {position, max_time, finished}
    steps: Mapping[str, Sequence[StepPart]]
    sinks: Mapping[str, Sequence[Committable]]
    ledger: Mapping[str, StepLedger] = field(default_factory=dict)  # by node, since the pipeline began

    def files(self) -> Iterator[StoredFile]:
        """Every state file, repeated where shared."""
        for parts in self.steps.values():
            for part in parts:
                yield from part.files.values()

    def size_bytes(self) -> int:
        """Bytes of all distinct state files."""
        return sum({file.name: file.size for file in self.files()}.values())

    def to_bytes(self) -> bytes:
        """JSON with a checksum over its body."""
        body = {
            "version": VERSION,
            "pipeline": self.pipeline,
            "checkpoint": self.checkpoint,
            "attempt": self.attempt,
            "created_ms": self.created_ms,
            "kind": self.kind,
            "max_parallelism": self.max_parallelism,
            "sources": self.sources,
            "steps": {
                step: [
                    {
                        "describe": part.describe,
                        "groups": [part.groups.first, part.groups.last],
                        "operator": part.operator,
                        "files": {name: file_entry(file) for name, file in part.files.items()},
                    }
                    for part in parts
                ]
                for step, parts in self.steps.items()
            },
            "sinks": self.sinks,
            "ledger": {node: account.as_json() for node, account in self.ledger.items()},
        }
        return json.dumps({"sha256": _checksum(body), "body": body}, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> Manifest:
        """Raises CorruptCheckpoint, naming the file, when it is torn, altered or of another version."""
        try:
            document = json.loads(content)
            body = document["body"]
            if document["sha256"] != _checksum(body):
                raise CorruptCheckpoint(f"{name}: the checksum does not match")
            if body["version"] > VERSION:
                raise NewerRelease(
                    f"{name} was written by a newer release of streamproc (version {body['version']}; this one "
                    f"reads up to {VERSION}): run that release, or go on elsewhere"
                )
            if body["version"] != VERSION:
                raise CorruptCheckpoint(f"{name}: version {body['version']} is not one this release reads ({VERSION})")
            return cls(
                pipeline=body["pipeline"],
                checkpoint=CheckpointId(body["checkpoint"]),
                attempt=body["attempt"],
                created_ms=body["created_ms"],
                kind=body["kind"],
                max_parallelism=body["max_parallelism"],
                sources=body["sources"],
                steps={step: [_part(part) for part in parts] for step, parts in body["steps"].items()},
                sinks=body["sinks"],
                ledger={node: StepLedger.from_json(stored) for node, stored in body.get("ledger", {}).items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptCheckpoint(f"{name}: not a readable manifest ({type(error).__name__}: {error})") from error


def file_entry(file: StoredFile) -> list[str | int]:
    """A stored file as the manifest writes it."""
    return [file.name, file.sha256, file.size]


def assemble(
    pipeline: str,
    checkpoint: CheckpointId,
    attempt: int,
    created_ms: int,
    kind: Kind,
    max_parallelism: int,
    parts: Sequence[Mapping[str, Any]],
    ledger: Mapping[str, StepLedger] = NOTHING_YET,
) -> Manifest:
    """Put the subtasks' acknowledged parts together. `ledger`: what the attempt's own counts are added to."""
    accounts = dict(ledger)
    sources: dict[str, dict[str, Any]] = {}
    steps: dict[str, list[StepPart]] = {}
    sinks: dict[str, list[Committable]] = {}
    for part in parts:
        for name, splits in part.get("sources", {}).items():
            sources.setdefault(name, {}).update(splits)
        for step, state in part.get("steps", {}).items():
            steps.setdefault(step, []).append(_part(state))
        for sink, committables in part.get("sinks", {}).items():
            sinks.setdefault(sink, []).extend(committables)
        for node, counted in part.get("ledger", {}).items():
            accounts[node] = accounts.get(node, StepLedger()) + StepLedger.from_json(counted)
    for states in steps.values():
        states.sort(key=lambda state: state.groups)
    return Manifest(pipeline, checkpoint, attempt, created_ms, kind, max_parallelism, sources, steps, sinks, accounts)


def _part(part: Mapping[str, Any]) -> StepPart:
    first, last = part["groups"]
    files = {local: StoredFile(name, sha256, size) for local, (name, sha256, size) in part["files"].items()}
    return StepPart(part["describe"], KeyGroupRange(first, last), part["operator"], files)


def _checksum(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
