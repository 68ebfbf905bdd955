"""A window as written: what is wrong with it, and the window that operators know.

Used by every verb that takes a window: aggregate, top and join.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from operators.element import Schema
from operators.explanation import duration_text
from operators.slices import Window
from operators.types import UNKNOWN
from operators.window import WINDOW_TYPE
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.spec import WindowField, WindowSpec
from streamproc.pipeline.suggest import listed

WINDOW_COLUMNS: Final = ("window_start", "window_end")
WINDOWS_PER_ROW_MAX: Final = 100_000
_SHAPES: Final[Mapping[str, str]] = {
    "tumble": "{tumble: 1m}",
    "hop": "{hop: {size: 10m, every: 1m}}",
    "session": "{session: 30s}",
    "cumulate": "{cumulate: {size: 1h, every: 1m}}",
}


def check_window(window: WindowField, schema: Schema, path: FieldPath, log: FaultLog) -> None:
    """Record what is wrong with a window. `schema`: the columns it is over, for `window: input`."""
    if window == "input":
        _check_carried(schema, path, log)
        return
    given = [name for name in _SHAPES if getattr(window, name) is not None]
    if len(given) != 1:
        if given:
            log.error(path, f"has both {listed(map(repr, given))}: give one", at_key=True)
        else:
            needed = listed(map(repr, _SHAPES), "or")
            log.error(path, f"needs {needed}", f"for example {_SHAPES['tumble']}", at_key=True)
        return
    every = window.tumble or 0
    for name in ("hop", "cumulate"):
        shape = getattr(window, name)
        if shape is not None:
            every = shape.every
            _check_size(name, shape.size, shape.every, (*path, name, "every"), log)
    if window.session is not None and window.offset:
        log.error((*path, "offset"), "a session begins with its first row: it has no offset")
    elif window.offset and window.offset >= every:
        message = f"{duration_text(window.offset)} is not less than the distance of windows ({duration_text(every)})"
        log.error((*path, "offset"), message)


def _check_size(name: str, size: int, every: int, path: FieldPath, log: FaultLog) -> None:
    if every > size:
        said = f"{duration_text(every)} is more than the size ({duration_text(size)})"
        lost = "rows between windows would be lost" if name == "hop" else "there would be no window"
        log.error(path, f"{said}: {lost}")
    elif name == "cumulate" and size % every:
        log.error(path, f"the size ({duration_text(size)}) is not a whole number of {duration_text(every)}")
    elif size // every > WINDOWS_PER_ROW_MAX:
        message = f"a row would belong to {size // every} windows; at most {WINDOWS_PER_ROW_MAX} are allowed"
        log.error(path, message)


def _check_carried(schema: Schema, path: FieldPath, log: FaultLog) -> None:
    missing = [name for name in WINDOW_COLUMNS if name not in schema]
    if missing:
        message = f"the input carries no windows: it has no column {listed(map(repr, missing))}"
        log.error(path, message, "they come from a step with a window; keep both columns in its `select`")
        return
    for name in WINDOW_COLUMNS:
        if schema[name] not in (WINDOW_TYPE, UNKNOWN):
            log.error(path, f"the column '{name}' of the input is not that of a window")


def is_whole(window: WindowField | None) -> bool:
    """Whether a window has exactly one shape (otherwise it has its fault already)."""
    return isinstance(window, WindowSpec) and sum(getattr(window, name) is not None for name in _SHAPES) == 1


def aligned_window(written: WindowField | None) -> Window | None:
    """A tumbling, hopping or cumulating window as operators know it; None for every other, and for a wrong one."""
    if not isinstance(written, WindowSpec) or not is_whole(written):
        return None
    if written.tumble is not None:
        return Window(written.tumble, written.tumble, written.offset)
    if written.hop is not None:
        return Window(written.hop.size, written.hop.every, written.offset)
    if written.cumulate is not None:
        return Window(written.cumulate.size, written.cumulate.every, written.offset, cumulates=True)
    return None
