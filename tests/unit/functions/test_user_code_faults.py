"""What is wrong with user code is told at `validate`, with file, function and remedy; later, with its line."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import polars as pl
import pytest

from operators.element import WATERMARK_MIN
from operators.operator import OperatorContext
from operators.row_errors import RecordFailed
from state.key_group import KeyGroupRange
from streamproc.pipeline.planner import check_pipeline

HEAD = """\
version: 1
pipeline: shop
sources:
  orders:
    type: file
    path: orders/*.json
    schema: {id: int64, country: string, amount: float64, at: timestamp_ms}
    event_time: {column: at}
    follow: FOLLOW
steps:
  scored:
    input: orders
    STEP
sinks:
  out: {type: print, input: scored}
"""
PROCESS = """
from streamproc import ProcessFunction, ValueState

class Counter(ProcessFunction):
    BODY
    def process(self, row, ctx):
        yield {"id": row["id"]}
"""


def faults(folder: Path, step: str, code: str = "", *, follow: bool = False) -> list[str]:
    (folder / "shop.py").write_text(dedent(code))
    file = folder / "shop.yaml"
    file.write_text(HEAD.replace("STEP", step).replace("FOLLOW", str(follow).lower()))
    _, found = check_pipeline(file)
    return [str(fault).partition("shop.yaml:")[2].partition(": ")[2] for fault in found]


def python(call: str, mode: str = "row") -> str:
    return f'python: {{call: "{call}", columns: {{risk: float64}}, mode: {mode}}}'


def process(call: str = "shop.py:Counter", more: str = "") -> str:
    return f'process: {{call: "{call}", key: [id], columns: {{id: int64}}{more}}}'


@pytest.mark.parametrize(
    ("call", "mode", "code", "told"),
    [
        ("shop:score", "row", "", "'shop:score' does not name code; write file.py:name, for example shop.py:score"),
        (
            "/etc/shop.py:score",
            "row",
            "",
            "'/etc/shop.py' is not inside the pipeline's folder; user code is loaded from the pipeline's folder only",
        ),
        (
            "../shop.py:score",
            "row",
            "",
            "'../shop.py' is not inside the pipeline's folder; user code is loaded from the pipeline's folder only",
        ),
        ("shp.py:f", "row", "", "there is no file 'shp.py' in the pipeline's folder; did you mean 'shop.py'?"),
        ("shop.py:scor", "row", "def score(row): ...", "'shop.py' has no 'scor'; did you mean 'score'?"),
        ("shop.py:score", "row", "score = 3", "'shop.py:score' is not a function but an int"),
        (
            "shop.py:score",
            "row",
            "class score: ...",
            "'shop.py:score' is a class, not a function; keyed functions with state go to `process`",
        ),
        (
            "shop.py:score",
            "row",
            "async def score(row): ...",
            "'shop.py:score' is an async function; write `mode: async`, or make it a plain `def`",
        ),
        (
            "shop.py:score",
            "async",
            "def score(row): ...",
            "'shop.py:score' is not an async function; write `async def score(row)`, or `mode: row`",
        ),
        (
            "shop.py:score",
            "batch",
            "def score(): ...",
            "'shop.py:score' takes (), and is called with (frame); write `def score(frame)`",
        ),
        ("shop.py:score", "row", "def score(row):\n    return (", "shop.py, line 2: '(' was never closed"),
        (
            "shop.py:score",
            "row",
            "\n\nraise ValueError('no licence')",
            "importing shop.py, line 3: ValueError: no licence",
        ),
        ("shop.py:score", "row", "raise SystemExit(3)", "importing shop.py, line 1: SystemExit: 3"),
        (
            "shop.py:score",
            "row",
            "import nothing_of_this_name",
            "importing shop.py, line 1: ModuleNotFoundError: No module named 'nothing_of_this_name'; "
            "only installed packages can be imported, not files beside it",
        ),
    ],
)
def test_code_that_cannot_be_used(tmp_path: Path, call: str, mode: str, code: str, told: str) -> None:
    assert faults(tmp_path, python(call, mode), code) == [f"steps.scored.python.call: {told}"]


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("def score(row): ...")
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "linked.py").symlink_to(tmp_path / "elsewhere.py")
    [told] = faults(folder, python("linked.py:score"))
    assert "'linked.py' is not inside the pipeline's folder" in told


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    assert faults(tmp_path, python("shop.py:score"), "score = 3") != []
    assert faults(tmp_path, python("shop.py:score"), "def score(row): ...") == []
    assert not list(tmp_path.glob("__pycache__"))


def test_what_a_file_says_beside_the_code(tmp_path: Path) -> None:
    step = 'python: {call: "shop.py:score", columns: {risk: floot64, __x: int64}, mode: row, in_flight: 3}'
    found = faults(tmp_path, step, "def score(row): ...")
    assert [fault.partition(":")[0] for fault in found] == [
        "steps.scored.python.columns.risk",
        "steps.scored.python.columns.__x",
        "steps.scored.python.in_flight",
    ]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "class Counter: ...",
            "'shop.py:Counter' is not a class derived from ProcessFunction; "
            "write `class Counter(ProcessFunction)` with `from streamproc import ProcessFunction`",
        ),
        (
            PROCESS.replace("BODY", "def __init__(self, limit): ..."),
            "'shop.py:Counter' cannot be made without arguments: TypeError: "
            "Counter.__init__() missing 1 required positional argument: 'limit'",
        ),
        (
            PROCESS.replace("BODY", "pass").replace("row, ctx", "row"),
            "'shop.py:Counter.process' takes (self, row), and is called with (self, row, ctx); "
            "write `def process(self, row, ctx)`",
        ),
        (
            PROCESS.replace("BODY", "pass").replace("    def process", "    async def process"),
            "'shop.py:Counter.process' is async, which a process function cannot be; "
            "write `def process(self, row, ctx)`",
        ),
        (
            PROCESS.replace("BODY", "count = ValueState('integer')"),
            "importing shop.py, line 5: WrongDeclaration: 'integer' is not a type",
        ),
        (
            PROCESS.replace("BODY", "count = ValueState('int64', ttl='soon')"),
            "importing shop.py, line 5: WrongDeclaration: ttl 'soon' is not a duration: "
            "write 500ms, 10s, 1m, 2h or 1d, or 'forever'",
        ),
    ],
)
def test_process_functions_that_cannot_be_used(tmp_path: Path, code: str, told: str) -> None:
    assert faults(tmp_path, process(), code) == [f"steps.scored.process.call: {told}"]


def test_state_without_a_bound_is_refused_over_input_that_never_ends(tmp_path: Path) -> None:
    code = PROCESS.replace("BODY", "count = ValueState('int64')")
    assert faults(tmp_path, process(), code) == []
    assert faults(tmp_path, process(), code, follow=True) == [
        "steps.scored.process.call: state 'count' of 'shop.py:Counter' would grow for ever over input that never ends; "
        "give it a `ttl='1h'`, or `ttl='forever'` where the function clears it itself"
    ]
    for ttl in ("'1h'", "'forever'"):
        bounded = code.replace("('int64')", f"('int64', ttl={ttl})")
        assert faults(tmp_path, process(), bounded, follow=True) == []


def test_keys_and_side_outputs(tmp_path: Path) -> None:
    code = PROCESS.replace("BODY", "pass")
    step = process(more=", outputs: {errors: {id: int64}, lost: {id: int}}").replace("key: [id]", "key: [idd]")
    found = faults(tmp_path, step, code)
    assert "steps.scored.process.key[0]: unknown column 'idd'; did you mean 'id'?" in found
    assert any(fault.startswith("steps.scored.process.outputs.errors: every step has an output") for fault in found)
    assert "steps.scored.process.outputs.lost.id: 'int' is not a type; did you mean int64?" in found
    assert any("nothing reads this side output" in fault for fault in found)


def operator_of(folder: Path, step: str, code: str) -> Any:
    (folder / "shop.py").write_text(dedent(code))
    file = folder / "shop.yaml"
    file.write_text(HEAD.replace("STEP", step).replace("FOLLOW", "false"))
    graph, found = check_pipeline(file)
    assert graph is not None, found
    [spec] = graph.steps["scored"].operators
    return spec.create(OperatorContext("scored", 0, 8, KeyGroupRange(0, 7), None))


ROWS = pl.DataFrame(
    {"id": [1, 2, 3], "country": ["FR", "US", "DE"], "amount": [1.0, 2.0, 3.0], "at": [0, 1, 2]},
).with_columns(pl.col("at").cast(pl.Datetime("ms", "UTC")))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("return None", "it returned None \\(NoneType\\), not a polars DataFrame"),
        ("return frame.head(1)", "it returned 1 rows for 3: give one for each, or use `mode: row`"),
        ("return frame", "it returned no column 'risk', which `columns` declares"),
        (
            "return frame.with_columns(risk=pl.lit('high'))",
            "column 'risk' is float64, and it returned string, for example 'high' \\(str\\)",
        ),
        ("return frame.with_columns(risk=pl.lit(1.0), rsk=1)", "it returned a column 'rsk' that `columns` does not"),
        (
            "return frame.with_columns(risk=pl.lit(1.0)).reverse()",
            "it changed column 'id', or the order of rows: keep the order, and declare",
        ),
    ],
)
def test_batches_that_are_not_what_is_asked_for(tmp_path: Path, code: str, told: str) -> None:
    function = f"import polars as pl\ndef score(frame):\n    {code}\n"
    operator = operator_of(tmp_path, python("shop.py:score", "batch"), function)
    with pytest.raises(Exception, match=f"step scored: shop.py:score: {told}"):
        list(operator.process(ROWS, WATERMARK_MIN))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("return 3", "it gave 3 \\(int\\) where a dict with risk is expected"),
        ("return {'risk': 'high'}", "column 'risk' is float64: 'high' \\(str\\) is not a float"),
        ("return {'risk': 1, 'rsk': 2}", "column 'rsk' is not declared in `columns`; did you mean 'risk'"),
        ("return row | {'risk': 1, 'id': 4}", "column 'id' was changed to 4 \\(int\\): to replace it, declare it"),
        ("return {'risk': 1 / 0}", "shop.py, line 2: ZeroDivisionError: division by zero"),
    ],
)
@pytest.mark.parametrize("mode", ["row", "async"])
def test_rows_that_are_not_what_is_asked_for(tmp_path: Path, mode: str, code: str, told: str) -> None:
    function = f"{'async ' if mode == 'async' else ''}def score(row):\n    {code}\n"
    operator = operator_of(tmp_path, python("shop.py:score", mode), function)
    with pytest.raises(RecordFailed, match=f'step scored: shop.py:score failed on {{"id": 1.*}}: {told}'):
        list(operator.process(ROWS, WATERMARK_MIN))
    if mode == "async":
        operator.close()


def test_a_call_that_hangs_is_told_with_what_to_change(tmp_path: Path) -> None:
    step = python("shop.py:score", "async").replace("mode", "timeout: 20ms, mode")
    function = "import asyncio\nasync def score(row):\n    await asyncio.Event().wait()\n"
    operator = operator_of(tmp_path, step, function)
    with pytest.raises(RecordFailed, match="no answer within 20 ms; `timeout` and `retries` are fields"):
        list(operator.process(ROWS, WATERMARK_MIN))
    operator.close()


def test_only_the_bad_rows_of_a_batch_go_to_the_errors_stream(tmp_path: Path) -> None:
    step = python("shop.py:score", "batch") + "\n    errors: skip"
    function = """
        import polars as pl

        def score(frame):
            if 2 in frame["id"]:
                raise ValueError("not 2")
            return frame.with_columns(risk=pl.col("amount"))
    """
    operator = operator_of(tmp_path, step, function)
    [output] = operator.process(ROWS, WATERMARK_MIN)
    assert output.frame.get_column("id").to_list() == [1, 3]
