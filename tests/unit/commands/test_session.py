"""What a user is told when something goes wrong, and which exit code it comes to."""

from __future__ import annotations

import pytest

from state.failure import Failure, StateError, StoreRefused, StoreUnavailable
from streamproc.commands.session import Session, describe
from streamproc.observability.redaction import Redaction
from streamproc.pipeline.faults import Fault, InvalidPipeline


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (StoreRefused("no permission"), 2, "streamproc: no permission\n"),
        (StoreUnavailable("no answer"), 1, "streamproc: no answer\n"),
        (InvalidPipeline([Fault("p.yaml", 3, 5, "steps.a", "is wrong")]), 2, "p.yaml:3:5: steps.a: is wrong\n"),
    ],
)
def test_failures_others_must_mend_are_one_line(
    error: Failure, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Session().report(error) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("error", [StateError("odd"), KeyError("x")])
def test_a_defect_of_ours_says_so_and_how_to_see_more(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert Session().report(error) == 1
    err = capsys.readouterr().err
    assert describe(error) in err
    assert "defect in streamproc" in err
    assert "STREAMPROC_DEBUG=1" in err


def test_the_traceback_comes_when_asked_for_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise StoreRefused("refused hunter2!")
    except StoreRefused as error:
        Session(debug=True, redaction=Redaction(["hunter2!"])).report(error)
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "hunter2!" not in err
