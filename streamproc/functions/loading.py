"""User code is loaded by file path, from the pipeline's folder and nowhere else.

Each `load` executes the file anew under a name of its own: nothing is cached, and subtasks share no module
variables. What goes wrong is told with the user's file and line, as a `LoadingFault`.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import itertools
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from state.failure import Failure
from streamproc.pipeline.suggest import did_you_mean

_CALL = re.compile(r"(?P<file>[^:]+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)")
_numbers = itertools.count(1)


class LoadingFault(Failure):
    """User code cannot be used. `hint` says what would help."""

    acts = "user"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}; {hint}")
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class UserCode:
    """A function or class in a file of the pipeline's folder; `file` is relative to it."""

    folder: Path
    file: str
    name: str

    @classmethod
    def parse(cls, call: str, folder: Path) -> UserCode:
        """Read `shop.py:score`; raises LoadingFault unless that is a file inside `folder`."""
        match = _CALL.fullmatch(call.strip())
        if match is None:
            raise LoadingFault(f"{call!r} does not name code", "write file.py:name, for example shop.py:score")
        code = cls(folder, match["file"].strip(), match["name"])
        code.path()
        return code

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"

    def path(self) -> Path:
        """Where the file really is; raises LoadingFault unless that is inside the folder."""
        folder = self.folder.resolve()
        if Path(self.file).is_absolute() or not (path := (folder / self.file).resolve()).is_relative_to(folder):
            said = "user code is loaded from the pipeline's folder only"
            raise LoadingFault(f"'{self.file}' is not inside the pipeline's folder", said)
        if not path.is_file():
            there = sorted(found.name for found in path.parent.glob("*.py")) if path.parent.is_dir() else []
            raise LoadingFault(
                f"there is no file '{self.file}' in the pipeline's folder", did_you_mean(path.name, there)
            )
        return path

    def load(self) -> Any:
        """Execute the file and take the object out of it; raises LoadingFault."""
        module = self._execute()
        try:
            return getattr(module, self.name)
        except AttributeError:
            own = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
            raise LoadingFault(f"'{self.file}' has no '{self.name}'", did_you_mean(self.name, own)) from None

    def _execute(self) -> ModuleType:
        path = self.path()
        # Registered, because dataclasses and typing look a class's module up.
        name = f"streamproc_user_code.{path.stem}_{next(_numbers)}"
        loader = _UncachedLoader(name, str(path))
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            loader.exec_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit is no way to end the product
            del sys.modules[name]
            if isinstance(error, SyntaxError) and error.filename == str(path):
                raise LoadingFault(f"{self.file}, line {error.lineno}: {error.msg}") from None
            hint = None
            if isinstance(error, ModuleNotFoundError):
                hint = "only installed packages can be imported, not files beside it"
            raise LoadingFault(f"importing {describe_error(error, path, self.file)}", hint) from None
        return module


class _UncachedLoader(importlib.machinery.SourceFileLoader):
    """Compiles the source each time: a bytecode cache would be taken for a file changed within the same second."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def describe_error(error: BaseException, path: Path, file: str) -> str:
    """`shop.py, line 12: ValueError: no rate`: the innermost line of the user's file, and what was raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = f"{file}, line {lines[-1]}" if lines else file
    said = str(error).strip().partition("\n")[0]
    return f"{place}: {type(error).__name__}{f': {said}' if said else ''}"


def check_callable(loaded: Any, code: UserCode, arguments: Sequence[str], *, awaited: bool) -> Callable[..., Any]:
    """The function, if it can be called with positional `arguments` (their names are for messages) and is `async`
    just where it must be; raises LoadingFault."""
    if not callable(loaded):
        raise LoadingFault(f"'{code}' is not a function but {_article(type(loaded).__name__)}")
    if inspect.isclass(loaded):
        raise LoadingFault(f"'{code}' is a class, not a function", "keyed functions with state go to `process`")
    expected = f"def {code.name}({', '.join(arguments)})"
    is_async = inspect.iscoroutinefunction(loaded)
    if inspect.isasyncgenfunction(loaded) or inspect.isgeneratorfunction(loaded):
        raise LoadingFault(f"'{code}' yields", "return the result instead, or write a process function")
    if is_async and not awaited:
        raise LoadingFault(f"'{code}' is an async function", "write `mode: async`, or make it a plain `def`")
    if awaited and not is_async:
        raise LoadingFault(f"'{code}' is not an async function", f"write `async {expected}`, or `mode: row`")
    _check_signature(loaded, str(code), arguments, ("async " if awaited else "") + expected)
    function: Callable[..., Any] = loaded
    return function


def _check_signature(function: Callable[..., Any], called: str, arguments: Sequence[str], expected: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # of a builtin: only calling it will tell
    try:
        signature.bind(*arguments)
    except TypeError:
        takes = f"'{called}' takes {signature}, and is called with ({', '.join(arguments)})"
        raise LoadingFault(takes, f"write `{expected}`") from None


def check_method(function: Callable[..., Any], called: str, arguments: Sequence[str]) -> None:
    """Raises LoadingFault unless the method can be called with `self` and these arguments, and is not async."""
    name = called.rpartition(".")[2]
    expected = f"def {name}(self, {', '.join(arguments)})"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise LoadingFault(f"'{called}' is async, which a process function cannot be", f"write `{expected}`")
    _check_signature(function, called, ["self", *arguments], expected)


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
