"""What the commands that ask a service make of its answers."""

from __future__ import annotations

import pytest

from streamproc.commands.remote import Remote, show_status, start
from streamproc.commands.session import Session
from streamproc.service.api import Conflict
from streamproc.service.app import create_app
from streamproc.service.config import ServiceConfig
from streamproc.service.views import GraphView, PipelineDetail
from tests.serving_app import served
from tests.shown_pipelines import ShownPipelines, pipeline, revenue_graph

DAMAGE = "what is wanted of it cannot be read: record.json is no JSON"


class Damaged(ShownPipelines):
    """Of one pipeline nothing is known but its name."""

    def graph(self, name: str) -> GraphView:
        raise Conflict(f"what is wanted of {name} cannot be read")


class SlowToStart(ShownPipelines):
    """A pipeline that waits for its broker the first times that it is looked at."""

    looks = 0

    def get(self, name: str) -> PipelineDetail:
        self.looks += 1
        state = "starting" if self.looks < 6 else "running"
        message = "source r: the broker does not answer" if state == "starting" else ""
        return super().get(name).model_copy(update={"state": state, "message": message})

    async def start(self, name: str, *, restore_from: int | None = None) -> PipelineDetail:
        return self.get(name)


def test_the_status_of_a_pipeline_without_a_graph_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Damaged()
    shown.show(pipeline("orders", state="failed", ready=False, message=DAMAGE))
    with served(create_app(shown, ServiceConfig())) as url:
        assert show_status(Session(), Remote(url), "orders", watch=False, interval_s=1.0) == 0
    assert DAMAGE in capsys.readouterr().out


def test_who_waits_is_told_that_nobody_has_to(capsys: pytest.CaptureFixture[str]) -> None:
    shown = SlowToStart()
    shown.show(pipeline("orders", state="stopped", wanted="running"), revenue_graph("orders"))
    with served(create_app(shown, ServiceConfig())) as url:
        assert start(Session(), Remote(url), "orders", None, wait=True) == 0
    told = capsys.readouterr().err
    assert told.count("the broker does not answer") == 1
    assert told.count("--no-wait") == 1
    assert "orders is running" in told
