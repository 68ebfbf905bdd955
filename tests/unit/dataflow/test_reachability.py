"""A job waits, and says for what, while its outside does not answer; it goes on as if nothing had been."""

from __future__ import annotations

from streamproc.dataflow.reachability import Outside, Reachability
from streamproc.observability.metrics import MetricRegistry
from streamproc.observability.status import JobState, JobStatus


class Broker:
    trouble: str | None = None

    def __call__(self) -> str | None:
        return self.trouble


def watched(state: JobState) -> tuple[Reachability, JobStatus, Broker, Outside]:
    gauge = MetricRegistry().gauge("source_reachable", "p", "orders", "0")
    broker, status = Broker(), JobStatus("p", state)
    outside = Outside("source", "orders", broker, gauge)
    return Reachability([outside], status), status, broker, outside


def reachable(outside: Outside) -> float:
    [family] = outside.reachable.collect()
    return family.samples[0].value


def test_a_running_job_waits_once_the_trouble_lasts() -> None:
    reachability, status, broker, outside = watched("running")
    broker.trouble = "the broker does not answer"
    reachability.look(10.0)
    assert (status.state, status.message, status.ready) == ("running", "", True)
    reachability.look(12.0)
    assert (status.state, status.message) == ("waiting", "source orders: the broker does not answer")
    assert not status.ready
    assert reachable(outside) == 0

    broker.trouble = None
    reachability.look(13.0)
    assert (status.state, status.message) == ("running", "")
    assert reachable(outside) == 1


def test_a_starting_job_says_what_it_waits_for() -> None:
    reachability, status, broker, _ = watched("starting")
    broker.trouble = "the broker does not answer"
    reachability.look(10.0)
    reachability.look(12.0)
    assert (status.state, status.message) == ("starting", "source orders: the broker does not answer")
    broker.trouble = None
    reachability.look(13.0)
    assert (status.state, status.message) == ("starting", "")


def test_it_takes_back_only_what_it_has_said() -> None:
    reachability, status, broker, _ = watched("stopping")
    status.message = "draining"
    reachability.look(1.0)
    assert (status.state, status.message) == ("stopping", "draining")
    broker.trouble = "the broker does not answer"
    reachability.look(2.0)
    reachability.look(5.0)
    assert status.state == "stopping", "a stop goes on whatever the outside does"
    status.message = "something else"
    broker.trouble = None
    reachability.look(6.0)
    assert status.message == "something else"


def test_a_trouble_that_comes_back_begins_anew() -> None:
    reachability, status, broker, _ = watched("running")
    for now_s in range(20):
        broker.trouble = "the broker is not ready" if now_s % 2 else None
        reachability.look(float(now_s))
        assert status.state == "running"
