"""The command line's service half against a real service: what it prints, refuses and exits with."""

from __future__ import annotations

import http.server
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamproc.cli import main
from streamproc.service.client import Access, Refused, ServiceClient
from tests.serving import Service

_READ, _ADMIN = "read-token-0123456789", "admin-token-0123456789"
_CONFIG = f"""
tokens:
  - {{name: rita, role: read, token: {_READ}}}
  - {{name: ada, role: admin, token: "${{env:ADMIN_TOKEN}}"}}
"""
_PIPELINE = """
version: 1
pipeline: NAME
job: {checkpoint: {every: 200ms}}
sources:
  rows:
    type: datagen
    rate: 200
    columns: {id: {sequence: {start: 0}}, at: {time: {step: 100ms}}}
    event_time: {column: at}
steps:
  some: {input: rows, where: id % 2 = 0, add: {digit: id % 10}}
  counts: {input: some, key: [digit], window: {tumble: 1s}, aggregate: {n: count(*)}}
sinks:
  out: {type: blackhole, input: counts}
"""


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "service.yaml").write_text(_CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADMIN_TOKEN", _ADMIN)
        service = Service(folder, "--config", "service.yaml")
        service.start()
    try:
        yield service
    finally:
        service.kill()


@pytest.fixture
def call(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls the program as a shell would, from a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_URL", service.url)
    monkeypatch.setenv("STREAMPROC_TOKEN", _ADMIN)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["streamproc", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert _ADMIN not in said.out + said.err
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run


def written(name: str, *edits: tuple[str, str]) -> str:
    text = _PIPELINE.replace("NAME", name)
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    Path(f"{name}.yaml").write_text(text)
    return f"{name}.yaml"


def test_a_day_of_an_operator(call: Call) -> None:
    assert "day" not in call("list").out
    file = written("day")
    planned = call("plan", file)
    assert (planned.code, planned.err) == (0, "")
    assert "day would be created, with 4 nodes." in planned.out
    applied = call("apply", file)
    assert applied.code == 0, applied.err
    assert "day is running (revision 1" in applied.err
    assert "nothing to do" in call("apply", file).out

    taken = json.loads(call("savepoint", "day", "--json").out)
    assert taken["kind"] == "savepoint"

    file = written(
        "day",
        ("id % 2 = 0", "id % 3 = 0"),
        ("  counts:", "  sums: {input: some, key: [digit], window: {tumble: 1s}, aggregate: {n: sum(id)}}\n  counts:"),
        ("sinks:\n", "sinks:\n  more: {type: blackhole, input: sums}\n"),
    )
    planned = call("plan", file)
    assert re.search(r"step some +changed +where: id % 2 = 0 → id % 3 = 0", planned.out)
    assert re.search(r"step sums +added", planned.out)
    assert re.search(r"step counts +unchanged +kept +what it has collected so far came from some", planned.out)
    assert "upgraded from a savepoint; no state is lost." in planned.out
    assert call("apply", file, "--yes").code == 0

    rescaled = call("rescale", "day", "3", "--json")
    assert (rescaled.code, json.loads(rescaled.out)["parallelism"]) == (0, 3)
    status = call("status", "day")
    assert "parallelism 3" in status.out
    assert re.search(r"step counts +3 ", status.out)
    listed = json.loads(call("list", "--json").out)["pipelines"]
    assert [(each["name"], each["state"]) for each in listed if each["name"] == "day"] == [("day", "running")]
    assert call("why", "day", "counts").out.strip()
    assert call("errors", "day").out == "There are no errors.\n"

    assert "day is stopped" in call("stop", "day").err
    assert "stopped" in call("status", "day").out
    assert call("start", "day", "--from", "999999").code == 2
    back = call("start", "day", "--from", str(taken["id"]))
    assert (back.code, "day is running" in back.err) == (0, True), back.err
    assert "day is drained" in call("stop", "day", "--drain").err
    assert call("delete", "day").code == 0
    assert call("status", "day").code == 2


def test_state_goes_only_where_it_is_said(call: Call) -> None:
    assert call("apply", written("drops")).code == 0
    file = written("drops", ("tumble: 1s", "tumble: 2s"))
    planned = call("plan", file)
    assert planned.code == 0
    assert "lose the state of counts" in planned.out
    refused = call("apply", file)
    assert (refused.code, refused.err) == (
        2,
        "streamproc: not applied: the state of counts would be lost; --drop-state allows that\n",
    )
    assert json.loads(call("status", "drops", "--json").out)["revision"] == 1
    allowed = call("apply", file, "--drop-state")
    assert allowed.code == 0, allowed.err
    assert json.loads(call("status", "drops", "--json").out)["revision"] == 2


def test_only_the_plan_that_was_shown_is_applied(call: Call, service: Service) -> None:
    assert call("apply", written("shown")).code == 0
    mine = Path(written("shown", ("id % 2", "id % 3"))).read_bytes()
    with ServiceClient(Access(service.url, _ADMIN)) as client:
        shown = client.plan("shown", mine)
        assert call("apply", written("shown", ("id % 2", "id % 4"))).code == 0
        with pytest.raises(Refused) as refused:
            client.put("shown", mine, plan=shown.id, drop_state=False)
    assert (refused.value.status, refused.value.slug) == (409, "plan-outdated")
    assert refused.value.plan is not None
    assert refused.value.plan.revision == 2


def test_a_faulty_file_is_told_as_validate_tells_it(call: Call) -> None:
    file = written("faulty", ("id % 2 = 0", "idd % 2 = 0"), ("input: counts", "input: count"))
    told = call("apply", file)
    assert told.code == 2
    assert told.err == call("validate", file).err
    assert told.err.startswith("faulty.yaml:")
    Path("broken.yaml").write_text("pipeline: [")
    broken = call("plan", "broken.yaml")
    assert (broken.code, broken.err) == (2, call("validate", "broken.yaml").err)
    assert broken.err.startswith("broken.yaml:")
    Path("nameless.yaml").write_text("version: 1\n")
    assert (
        call("plan", "nameless.yaml").err
        == "streamproc: nameless.yaml: 'pipeline' is missing: it is the pipeline's name\n"
    )
    assert call("plan", "missing.yaml").err == "streamproc: missing.yaml: cannot be read: no such file or directory\n"


def test_a_pipeline_that_fails_ends_apply_with_the_reason(call: Call) -> None:
    generated = (
        "    type: datagen\n    rate: 200\n    columns: {id: {sequence: {start: 0}}, at: {time: {step: 100ms}}}\n"
    )
    read = "    type: file\n    path: nowhere/*.json\n    schema: {id: int64, at: timestamp_ms}\n"
    file = written("fails", (generated, read))
    applied = call("apply", file)
    assert applied.code == 1
    assert "fails failed: source rows: no file matches nowhere/*.json" in applied.err


def test_who_may_not_is_told(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = written("secret")
    monkeypatch.delenv("STREAMPROC_TOKEN")
    refused = call("list")
    assert refused.code == 2
    assert "STREAMPROC_TOKEN or --token-file" in refused.err
    (tmp_path / "token").write_text(f"{_READ}\n")
    assert call("plan", file, "--token-file", "token").code == 0
    refused = call("apply", file, "--token-file", "token")
    assert (refused.code, refused.out.count("would be created")) == (2, 1)
    assert call("list", "--token-file", "no-such-file").code == 2
    monkeypatch.setenv("STREAMPROC_TOKEN", _ADMIN)
    assert call("list", "--url", "http://example.com:8080").err == (
        "streamproc: a token over plain HTTP could be read on its way to example.com: use https://, or, on a network "
        "that is trusted, --plain-http\n"
    )


def test_what_is_not_there_is_told(call: Call, service: Service) -> None:
    assert call("status", "nobody").code == 2
    unknown = call("why", "nobody", "step")
    assert (unknown.code, unknown.err) == (2, "streamproc: there is no pipeline nobody\n")
    nobody = call("list", "--url", "http://127.0.0.1:1")
    assert nobody.code == 1
    assert call("apply", written("known")).code == 0
    side_output = call("why", "known", "counts.late")
    assert (side_output.code, side_output.err) == (
        2,
        "streamproc: known has no source, step or sink counts.late; did you mean 'counts'?\n",
    )
    assert "`streamproc serve` starts one; --url or STREAMPROC_URL says where another is" in nobody.err
    assert call("list", "--url", "nonsense").code == 2


def test_what_a_pipeline_has_no_longer_leaves_no_series(call: Call, service: Service) -> None:
    assert call("apply", written("shrinks", ("every: 200ms}", "every: 200ms}, parallelism: 2"))).code == 0
    assert 'streamproc_records_in_total{pipeline="shrinks",step="counts",subtask="1"}' in service.metrics()
    file = written("shrinks", ("id % 2 = 0, add: {digit: id % 10}", "id % 2 = 0"), ("[digit]", "[id]"))
    assert call("apply", file, "--drop-state").code == 0
    of_it = [line for line in service.metrics().splitlines() if 'pipeline="shrinks"' in line]
    assert [line for line in of_it if 'subtask="1"' in line] == []
    assert [line for line in of_it if line.startswith("streamproc_records_in_total") and 'step="rows"' in line]


def test_what_is_no_name_reaches_no_other_route(call: Call) -> None:
    assert call("apply", written("named")).code == 0
    taken = json.loads(call("savepoint", "named", "--json").out)["id"]
    for arguments in (
        ("delete", f"named/savepoints/{taken}"),
        ("status", "named/graph"),
        ("status", ""),
        ("status", ".."),
        ("why", "named", ""),
        ("why", "named", "a/b"),
    ):
        told = call(*arguments)
        assert (told.code, told.err.endswith(" is no name\n")) == (2, True), told.err
    assert taken in json.loads(call("status", "named", "--json").out)["savepoints"]
    assert json.loads(call("savepoint", "named", "--delete", str(taken), "--json").out) == {"deleted": taken}


@pytest.mark.parametrize("token", ["two words", "two\nlines", "ünicode-0123456789", " "])
def test_what_no_header_can_carry_is_no_token(token: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("token").write_text(token)
    in_file = call("list", "--token-file", "token")
    assert (in_file.code, in_file.err.startswith("streamproc: --token-file token holds no token")) == (2, True)
    monkeypatch.setenv("STREAMPROC_TOKEN", token)
    in_environment = call("list")
    assert (in_environment.code, in_environment.err.startswith("streamproc: STREAMPROC_TOKEN holds no token")) == (
        2,
        True,
    )


def test_white_space_around_a_token_is_not_of_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPROC_TOKEN", f"{_ADMIN}\n")
    assert call("list").code == 0


def test_another_server_is_not_taken_for_the_service(call: Call) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        told = call("list", "--url", f"http://127.0.0.1:{other.server_port}")
        other.shutdown()
    assert told.code == 1
    assert "is not a streamproc service (HTTP 404)" in told.err


class _Other(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_watching_ends_quietly(call: Call, service: Service) -> None:
    assert call("apply", written("watched")).code == 0
    command = [sys.executable, "-m", "streamproc", "status", "watched", "--watch", "--interval", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline() for _ in range(3)]
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=30)
    assert all(line.startswith("watched running · ") for line in lines), lines
    assert (watching.returncode, err) == (0, "")


def test_on_a_terminal_it_asks_first(call: Call, service: Service) -> None:
    file = written("asked")
    assert _on_terminal(["apply", file], "n\n") == 2
    assert call("status", "asked").code == 2, "nobody agreed"
    assert _on_terminal(["apply", file], "y\n") == 0
    assert call("status", "asked").code == 0
    assert _on_terminal(["delete", "asked"], "\n") == 2
    assert call("delete", "asked").code == 0
    assert call("status", "asked").code == 2


def _on_terminal(arguments: list[str], answer: str) -> int:
    """The exit code of a command on a terminal where somebody answers."""
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "streamproc", *arguments]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
        os.close(theirs)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 4096)
        os.write(ours, answer.encode())
        try:
            while os.read(ours, 4096):
                pass
        except OSError:
            pass  # the other side is closed
        return process.wait(60)
    finally:
        os.close(ours)
