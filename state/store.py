"""The checkpoint store: named files that are whole or absent, on local disk or any fsspec file system.

Everything a store can raise is one of a few failures that say who acts; passing errors have been tried
three times by then. Methods block: call them from worker threads. Several may run at once.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import fsspec.core

from state.failure import AlreadyExists, Failure, NotInStore, StateError, StoreRefused, StoreUnavailable
from state.store_local import LocalFolder
from state.store_remote import FsspecFolder

T = TypeVar("T")

_PAUSES_SECONDS = (0.1, 0.5)  # before the second and the third try
_NAME_LENGTH_MAX = 512
_NAME = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*")
_PREFIX = re.compile(rf"({_NAME.pattern}/?)?")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.EOPNOTSUPP,
}
_DEFECTS = (TypeError, AttributeError, NameError, AssertionError, LookupError, NotImplementedError)


class Folder(Protocol):
    """A place for named files; raises whatever it raises."""

    def read(self, name: str) -> bytes: ...
    def create(self, name: str, content: bytes) -> None: ...
    def put(self, name: str, source: Path) -> None: ...
    def get(self, name: str, target: Path) -> None: ...
    def size(self, name: str) -> int | None: ...
    def list(self, prefix: str) -> Iterator[tuple[str, int]]: ...
    def delete(self, name: str) -> None: ...
    def sweep(self, age_seconds_min: float) -> int: ...


class CheckpointStore:
    """Files of all checkpoints under one URL.

    Names are relative paths of letters, digits and `._=-`, no part beginning with a dot. Raises NotInStore,
    AlreadyExists, StoreRefused (permission, bad name) or StoreUnavailable (anything that may pass).
    """

    def __init__(
        self, folder: Folder, shown: str, *, secrets: tuple[str, ...] = (), sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._folder = folder
        self._secrets = secrets
        self._sleep = sleep
        self.shown = shown  # the URL without what must not be printed

    @classmethod
    def open(cls, url: str, folder: str = "") -> CheckpointStore:
        """The store at `file:relative/path`, `file:///absolute`, a bare path, or any URL fsspec knows; or the
        one in a folder of it.

        Nothing is created before the first write. Raises StoreRefused for a URL that cannot be used.
        """
        local = _local_path(url)
        if local is not None:
            return cls(LocalFolder(local / folder), f"file:{local / folder}")
        shown, secrets = _without_secrets(url)
        try:
            filesystem, root = fsspec.core.url_to_fs(url)  # type: ignore[no-untyped-call]
        except (ValueError, ImportError) as error:
            message = _masked(str(error), secrets)
            raise StoreRefused(f"checkpoint store {shown} cannot be used: {message}") from None
        if folder:
            root, shown = f"{root.rstrip('/')}/{folder}", f"{shown} in {folder}"
        return cls(FsspecFolder(filesystem, root), shown, secrets=secrets)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return self._attempt("read", name, lambda: self._folder.read(name))

    def create(self, name: str, content: bytes) -> None:
        """Write a file that must not exist yet; of several racing to create it one wins, the others get
        AlreadyExists.

        `content` must differ between writers: after an unclear answer, finding one's own content is success.
        """
        tries = 0

        def create() -> None:
            nonlocal tries
            tries += 1
            try:
                self._folder.create(name, content)
            except FileExistsError:
                if tries == 1 or self._folder.read(name) != content:
                    raise

        self._attempt("create", name, create)

    def put(self, name: str, source: Path) -> None:
        """Copy a local file to a name that says its content; nothing to do when it is there in the same size."""
        if not source.is_file():
            raise StateError(f"{source} is gone before it was uploaded")
        size = source.stat().st_size

        def put() -> None:
            if self._folder.size(name) != size:
                self._folder.put(name, source)

        self._attempt("write", name, put)

    def get(self, name: str, target: Path) -> None:
        """Copy a file to a local path, whose folder is made when missing."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._attempt("read", name, lambda: self._folder.get(name, target))

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return self._attempt("look up", name, lambda: self._folder.size(name)) is not None

    def list(self, prefix: str = "") -> list[tuple[str, int]]:
        """Names starting with `prefix` (which may end within a part: `chk-`) and their bytes, sorted."""
        if not _PREFIX.fullmatch(prefix):
            raise StoreRefused(f"{prefix!r} is no prefix of names in a checkpoint store")
        return self._attempt("list", prefix, lambda: sorted(self._folder.list(prefix)), check=False)

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is fine."""
        self._attempt("delete", name, lambda: self._folder.delete(name))

    def sweep(self, age_seconds_min: float = 3600.0) -> int:
        """Remove what killed processes left half-written, untouched for that long; returns how many files."""
        return self._attempt("sweep", "", lambda: self._folder.sweep(age_seconds_min), check=False)

    def _attempt(self, verb: str, name: str, act: Callable[[], T], *, check: bool = True) -> T:
        if check and not (_NAME.fullmatch(name) and len(name) <= _NAME_LENGTH_MAX):
            raise StoreRefused(f"{name!r} is no name for a file in a checkpoint store")
        pauses = iter(_PAUSES_SECONDS)
        while True:
            try:
                return act()
            except _DEFECTS:
                raise
            except Exception as error:
                failure = self._meaning(error, verb, name)
                passes = isinstance(failure, StoreUnavailable) and getattr(error, "errno", None) not in _NO_ROOM
                pause = next(pauses, None) if passes else None
                if pause is None:
                    # A cause is printed with the failure, so it must not hold a secret.
                    raise failure from (None if self._secrets else error)
            self._sleep(pause)

    def _meaning(self, error: Exception, verb: str, name: str) -> Failure:
        what = f"cannot {verb} {name!r} in checkpoint store {self.shown}"
        reason = _masked(str(error) or type(error).__name__, self._secrets)
        if isinstance(error, FileNotFoundError) and verb == "read":
            return NotInStore(f"{what}: it is not there")
        if isinstance(error, FileExistsError):
            return AlreadyExists(f"{what}: it is there already")
        if isinstance(error, PermissionError):
            return StoreRefused(f"{what}: permission denied ({reason})")
        if isinstance(error, OSError) and error.errno in _REFUSED:
            return StoreRefused(f"{what}: {reason}")
        return StoreUnavailable(f"{what}: {reason}")


def _local_path(url: str) -> Path | None:
    """The folder a URL or a bare path means; None for what only fsspec knows."""
    scheme, colon, rest = url.partition(":")
    if not colon or "/" in scheme:
        scheme, rest = "file", url
    if scheme == "file":
        path = rest.removeprefix("//") if rest.startswith("///") else rest
        if path and not path.startswith("//"):
            return Path(path)
    elif rest.startswith((":", "//")):  # `::` joins protocols
        return None
    raise StoreRefused(f"checkpoint store {url!r}: write file:relative/path, file:///absolute/path or scheme://…")


def shown_url(url: str) -> str:
    """The URL without what must not be printed, or kept. Raises StoreRefused for one that cannot be used."""
    return url if _local_path(url) is not None else _without_secrets(url)[0]


def _without_secrets(url: str) -> tuple[str, tuple[str, ...]]:
    """The URL as it may be printed, and the texts that may not."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    shown = parts._replace(netloc=f"***@{host}" if at else host, query="***" if parts.query else "", fragment="")
    secrets = (userinfo, parts.password or "", parts.query, parts.fragment)
    return shown.geturl(), tuple(secret for secret in secrets if secret)


def _masked(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
