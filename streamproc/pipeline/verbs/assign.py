"""A step with `window` and no verb: each row gets the windows it is in, once for each."""

from __future__ import annotations

from operators.window import WINDOW_TYPE
from operators.window_assign import WindowAssignSpec
from streamproc.pipeline.columns import GuessedColumns
from streamproc.pipeline.spec import WindowSpec
from streamproc.pipeline.verbs.verb import PlannedStep, VerbContext
from streamproc.pipeline.verbs.windows import WINDOW_COLUMNS, aligned_window, check_window, is_whole


def plan(context: VerbContext, planned: PlannedStep) -> None:
    """Fill in a step that only assigns windows."""
    window, log, path = context.spec.window, context.log, (*context.path, "window")
    [facts] = context.inputs
    planned.schema = type(facts.schema)(facts.schema | dict.fromkeys(WINDOW_COLUMNS, WINDOW_TYPE))
    if window is None or context.part.is_wrong("window"):
        return
    context.need_event_time(facts, path, "a window")
    if isinstance(window, WindowSpec) and not is_whole(window):
        check_window(window, facts.schema, path, log)
        return
    for name in WINDOW_COLUMNS:
        if name in facts.schema and not isinstance(facts.schema, GuessedColumns):
            log.error(path, f"the input has a column '{name}' already", "rename it in a step before", at_key=True)
    if not isinstance(window, WindowSpec) or window.session is not None:
        what = "a session" if isinstance(window, WindowSpec) else "'window: input'"
        log.error(path, f"{what} needs 'aggregate' in the same step", at_key=True)
        return
    check_window(window, facts.schema, path, log)
    aligned = aligned_window(window)
    if aligned is not None and not log.failed:
        planned.operators.append(WindowAssignSpec(aligned, facts.schema))
