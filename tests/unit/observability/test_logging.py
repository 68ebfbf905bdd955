"""Logs are JSON lines off a terminal, hold no secret, and spare people our tracebacks."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from state.failure import Failure, StateError, StoreRefused
from streamproc.observability.logging import configure_logging
from streamproc.observability.redaction import REDACTED, Redaction


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Redaction(), "info", terminal=False)
    structlog.get_logger("streamproc.job").info("checkpoint completed", checkpoint=3)

    (line,) = lines(capsys)
    assert line.pop("timestamp")
    assert line == {"event": "checkpoint completed", "checkpoint": 3, "level": "info", "logger": "streamproc.job"}


def test_lines_for_people_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Redaction(), "info", terminal=True)
    structlog.get_logger("streamproc.job").warning("no answer", broker="b:9092")

    err = capsys.readouterr().err
    assert "no answer" in err
    assert "b:9092" in err
    assert not err.startswith("{")


def test_other_libraries_are_heard_at_warning_and_redacted_too(capsys: pytest.CaptureFixture[str]) -> None:
    redaction = Redaction()
    configure_logging(redaction, "debug", terminal=False)
    redaction.add(["hunter2-hunter2"])  # known only once the pipeline is read
    logging.getLogger("fsspec.http").info("chatter")
    logging.getLogger("fsspec.http").warning("refused for %s", "svc:hunter2-hunter2")

    assert [line["event"] for line in lines(capsys)] == [f"refused for svc:{REDACTED}"]


def test_a_secret_is_hidden_in_events_fields_nested_ones_and_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Redaction(["s3cr3t/value"]), "info", terminal=False)
    log = structlog.get_logger("streamproc.x")
    try:
        raise RuntimeError("bad s3cr3t/value")
    except RuntimeError:
        log.exception("it was s3cr3t/value", url="http://h/?p=s3cr3t%2Fvalue", config={"a": ["s3cr3t/value"]})

    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "s3cr3t" not in err


def test_what_stands_under_a_secrets_key_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Redaction(), "info", terminal=False)
    structlog.get_logger("streamproc.x").info("x", password="p1", sasl={"Auth_Token": "p2", "user": "svc"})

    (line,) = lines(capsys)
    assert line["password"] == REDACTED
    assert line["sasl"] == {"Auth_Token": REDACTED, "user": "svc"}


@pytest.mark.parametrize(
    ("failure", "level", "traceback"),
    [(StoreRefused("no"), "info", False), (StoreRefused("no"), "debug", True), (StateError("no"), "info", True)],
)
def test_only_our_own_failures_come_with_a_traceback(
    failure: Failure, level: str, traceback: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(Redaction(), level, terminal=False)
    try:
        raise failure
    except Failure:
        structlog.get_logger("streamproc.x").exception("failed")

    (line,) = lines(capsys)
    assert ("exception" in line) is traceback
    assert traceback or line["error"] == "no"


def test_the_level_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMPROC_LOG_LEVEL", "warning")
    configure_logging(Redaction(), terminal=False)
    structlog.get_logger("streamproc.x").info("not heard")
    structlog.get_logger("streamproc.x").warning("heard")

    assert [line["event"] for line in lines(capsys)] == ["heard"]
