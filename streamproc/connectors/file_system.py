"""Where the files of a source or sink are: any place fsspec can reach, named without its secrets."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, ClassVar, Final, Protocol, cast

from fsspec.core import url_to_fs

from operators.connector import SplitId
from state.failure import Actor, Failure

_MAGIC: Final = re.compile(r"[*?\[]")
_HIDDEN: Final = (".", "_")  # files in the making, ours included, by the convention of most tools


class FileSystem(Protocol):
    """What is used of an fsspec file system."""

    def glob(self, path: str, *, detail: bool) -> dict[str, dict[str, Any]]: ...
    def exists(self, path: str) -> bool: ...
    def size(self, path: str) -> int | None: ...
    def isfile(self, path: str) -> bool: ...
    def isdir(self, path: str) -> bool: ...
    def ls(self, path: str, *, detail: bool) -> list[str]: ...
    def makedirs(self, path: str, *, exist_ok: bool) -> None: ...
    def open(self, path: str, mode: str, **options: Any) -> IO[bytes]: ...
    def cat_file(self, path: str, *, start: int | None = None, end: int | None = None) -> bytes: ...
    def pipe_file(self, path: str, value: bytes) -> None: ...
    def mv(self, path1: str, path2: str) -> None: ...
    def rm_file(self, path: str) -> None: ...
    def invalidate_cache(self) -> None: ...


class FileSystemError(Failure):
    """The place of the files did not answer, or refused."""

    acts: ClassVar[Actor] = "world"
    retry_helps: ClassVar[bool] = True


def shown(url: str) -> str:
    """A path or URL as it may appear in messages: without user, password and query."""
    return re.sub(r"(://)[^/@]*@", r"\1", url).split("?X-Amz-")[0]


@dataclass(frozen=True, slots=True)
class Files:
    """The files that match a path or glob."""

    fs: FileSystem
    pattern: str
    root: str  # the folder above the first wildcard; split names are relative to it

    @classmethod
    def at(cls, path: str) -> Files:
        """Resolve a local path or a URL; raises `FileSystemError` when its scheme is unknown."""
        fs, pattern = _resolve(path)
        steps = pattern.split("/")
        plain = next((i for i, step in enumerate(steps) if _MAGIC.search(step)), len(steps) - 1)
        return cls(fs, pattern, "/".join(steps[:plain]))

    def list(self) -> dict[SplitId, str]:
        """Matching files by split name, sorted; hidden ones (leading `.` or `_`) are left out."""
        self.fs.invalidate_cache()
        if _MAGIC.search(self.pattern):
            paths = [path for path, info in self.fs.glob(self.pattern, detail=True).items() if info["type"] == "file"]
        else:
            paths = [self.pattern] if self.fs.isfile(self.pattern) else []
        names = sorted((path[len(self.root) :].lstrip("/"), path) for path in paths)
        return {SplitId(n): path for n, path in names if not PurePosixPath(n).name.startswith(_HIDDEN)}

    def is_folder(self) -> bool:
        """Whether the path is a folder, which names no file."""
        return self.fs.isdir(self.pattern)


def subtask_of(split: SplitId, parallelism: int) -> int:
    """The subtask that reads this split: by its name alone, the same on every machine."""
    digest = hashlib.sha256(split.encode()).digest()
    return int.from_bytes(digest[:8], "big") % parallelism


def folder_at(path: str) -> tuple[FileSystem, str]:
    """File system and folder of a sink; raises `FileSystemError` when the scheme is unknown."""
    fs, folder = _resolve(path)
    return fs, folder.rstrip("/")


def _resolve(path: str) -> tuple[FileSystem, str]:
    try:
        fs, found = url_to_fs(path)  # type: ignore[no-untyped-call]
    except (ValueError, ImportError) as error:
        raise FileSystemError(f"{shown(path)}: {error}") from error
    return cast(FileSystem, fs), str(found)
