"""What is wanted of every pipeline, on disk: one folder a pipeline, changed by nothing but renames.

    lock                              held by the service that uses the directory
    pipelines/<name>/record.json      what is wanted, and of which revision
    pipelines/<name>/<revision>.yaml  the file as it was given

A folder appears whole (it is made under another name) and goes whole; the record is replaced after the YAML it
speaks of is there. So a process that is killed at any moment leaves the old wish or the new one. A record that
cannot be read is told as damaged, by its name: it costs one pipeline, not the others.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TextIO

from pydantic import Field, ValidationError

from state.failure import Failure
from streamproc.pipeline.model import Model
from streamproc.pipeline.spec import PIPELINE_NAME
from streamproc.service.durable import UNFINISHED, flush_folder, rename, write_file
from streamproc.service.views import Wanted

REVISIONS_KEPT: Final = 10

_GONE: Final = ".gone"
_RECORD: Final = "record.json"
_REVISION: Final = re.compile(r"(\d{6,})\.yaml")


class DirectoryInUse(Failure):
    """Another service uses the directory."""

    acts = "user"


class DirectoryUnusable(Failure):
    """The directory cannot be made or locked."""

    acts = "user"


class Record(Model):
    """What is wanted of one pipeline. `allowed_drops`: nodes whose stored state this revision may ignore.
    `restore_from`: the checkpoint to go on from, until an attempt has; None: the newest. `begun`: an attempt has
    recorded in the checkpoint store what it goes on from. `storage`: where the service kept checkpoints when the
    pipeline was created, without secrets; it stays there, unless its file names another."""

    version: Literal[1] = 1
    name: str = Field(pattern=PIPELINE_NAME)
    revision: int = Field(ge=1)
    yaml_sha256: str
    wanted: Wanted = "running"
    parallelism: int | None = Field(default=None, ge=1)  # in place of the file's
    allowed_drops: tuple[str, ...] = ()
    restore_from: int | None = None
    begun: bool = False
    storage: str | None = None
    upgrade_savepoint: int | None = None  # taken before the last upgrade; the next one's takes its place
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """One pipeline as stored."""

    record: Record
    yaml: bytes


@dataclass(frozen=True, slots=True)
class Damaged:
    """A pipeline whose wish cannot be read, and why."""

    reason: str


def sha256_of(yaml: bytes) -> str:
    """As a record has it."""
    return hashlib.sha256(yaml).hexdigest()


class Registry:
    """The wishes in one directory. Methods block, and raise OSError for a disk that refuses."""

    def __init__(self, directory: Path) -> None:
        """Take the directory. Raises DirectoryInUse, DirectoryUnusable."""
        self._pipelines = directory / "pipelines"
        try:
            self._pipelines.mkdir(parents=True, exist_ok=True)
            flush_folder(directory)
            self._lock = _locked(directory / "lock")
        except BlockingIOError:
            raise DirectoryInUse(f"another service uses {directory}; give this one a `directory` of its own") from None
        except OSError as error:
            raise DirectoryUnusable(f"{directory} cannot be used: {error.strerror or error}") from error
        for path in self._pipelines.iterdir():  # of creations and removals that were cut short
            if path.name.endswith((UNFINISHED, _GONE)):
                shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Let another service have the directory."""
        self._lock.close()

    def load(self) -> Mapping[str, Entry | Damaged]:
        """Every pipeline, by name."""
        folders = sorted(path for path in self._pipelines.iterdir() if re.fullmatch(PIPELINE_NAME, path.name))
        return {path.name: _read(path) for path in folders}

    def create(self, record: Record, yaml: bytes) -> None:
        """A new pipeline. In the folder of a damaged one of that name only files are replaced: it stays damaged until
        the new record is there."""
        folder = self._pipelines / record.name
        if folder.is_dir():
            self.write(record, yaml)
            return
        made = folder.with_name(record.name + UNFINISHED)
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        write_file(made / _yaml_name(record.revision), yaml)
        write_file(made / _RECORD, record.model_dump_json(indent=1).encode())
        rename(made, folder)

    def write(self, record: Record, yaml: bytes | None = None) -> None:
        """Another wish; with `yaml`, of a new revision."""
        folder = self._pipelines / record.name
        if yaml is not None:
            write_file(folder / _yaml_name(record.revision), yaml)
        write_file(folder / _RECORD, record.model_dump_json(indent=1).encode())
        if yaml is not None:
            for path in folder.iterdir():
                match = _REVISION.fullmatch(path.name)
                if match and int(match[1]) <= record.revision - REVISIONS_KEPT:
                    path.unlink()

    def forget(self, name: str) -> None:
        """Nothing is wanted of it any more."""
        gone = self._pipelines / (name + _GONE)
        shutil.rmtree(gone, ignore_errors=True)
        rename(self._pipelines / name, gone)
        shutil.rmtree(gone, ignore_errors=True)
        flush_folder(self._pipelines)


def _locked(path: Path) -> TextIO:
    lock = path.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock


def _yaml_name(revision: int) -> str:
    return f"{revision:06d}.yaml"


def _read(folder: Path) -> Entry | Damaged:
    try:
        record = Record.model_validate_json((folder / _RECORD).read_bytes())
        if record.name != folder.name:
            return Damaged(f"{_RECORD} is of another pipeline, {record.name}")
        name = _yaml_name(record.revision)
        yaml = (folder / name).read_bytes()
    except OSError as error:
        return Damaged(f"{Path(error.filename or folder).name} cannot be read: {error.strerror or error}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return Damaged(f"{_RECORD} is damaged: {f'{where}: ' if where else ''}{first['msg']}")
    if sha256_of(yaml) != record.yaml_sha256:
        return Damaged(f"{name} is not what was given: its checksum does not match")
    return Entry(record, yaml)
