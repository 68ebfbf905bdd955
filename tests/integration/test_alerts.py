"""What breaks lights its own alert and no other, and `why` names the cause: a real service, Kafka and Prometheus with
the rules that we ship, their waits made shorter. All faults at once, side by side with a pipeline that stays well."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from streamproc.service.client import Access, ServiceClient
from tests.broker import Broker
from tests.faults import ailing
from tests.faults.ailing import (
    FAILING,
    HEALTHY,
    OVERWORKED,
    PIPELINES,
    PUT_ASIDE,
    SLOW_SINK,
    STALLED,
    UNSAVED,
    Orders,
)
from tests.prometheus import Prometheus, rules, running_or_skipped
from tests.serving import Service

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

FASTER: Final = 6.0
FIRES_S: Final = 150.0  # a partition has to be silent for 60 s; all the others come sooner
Lit = tuple[str, str, str]  # alert, pipeline, step or ""

BROKEN: Final[set[Lit]] = {
    ("WatermarkStalled", STALLED, "orders"),
    ("ErrorRecords", PUT_ASIDE, "orders"),
    ("PipelineDown", FAILING, ""),
    ("Backpressured", SLOW_SINK, ""),
    ("CannotKeepUp", OVERWORKED, ""),
    ("CheckpointsFailing", UNSAVED, ""),
}
# What these faults may show besides, depending on the moment: all lag behind.
BESIDES: Final[set[Lit]] = {
    ("ErrorRecords", FAILING, "orders"),
    ("CannotKeepUp", UNSAVED, ""),
    ("CheckpointTooOld", UNSAVED, ""),
    *(("SourceLagGrowing", name, "orders") for name in (SLOW_SINK, OVERWORKED, UNSAVED)),
}
# The pipeline and step that is asked about; the cause and the node that is to blame.
WHY: Final = {
    (STALLED, "out"): ("watermark_held_back", "orders"),
    (FAILING, "out"): ("not_running", None),
    (SLOW_SINK, "out"): ("slow_sink", "out"),
    (SLOW_SINK, "orders"): ("slow_sink", "out"),
    (OVERWORKED, "out"): ("backpressure", "scored"),
}


def test_what_breaks_lights_its_alert(kafka_to_kill: Broker, tmp_path: Path) -> None:
    broker = kafka_to_kill
    ailing.write_pipelines(tmp_path, broker)
    service, orders = Service(tmp_path, "--config", "service.yaml"), Orders(broker)
    with ExitStack() as stack:
        prometheus = stack.enter_context(running_or_skipped(rules(FASTER)))
        stack.callback(service.kill)
        service.start()
        stack.enter_context(orders.flowing())
        prometheus.scrape("streamproc", service.metrics_address)
        orders.both = True
        apply(service, tmp_path, *PIPELINES)
        service.until(lambda: all(rows_out(service, name) for name in (HEALTHY, STALLED, SLOW_SINK)))

        prometheus.until(knows_the_service, what="the service is known to be there")

        break_everything(broker, orders)
        seen: set[Lit] = set()

        def all_seen(prometheus: Prometheus) -> bool:
            seen.update(lit(prometheus))
            return seen >= BROKEN

        prometheus.until(all_seen, FIRES_S, what=f"each of {BROKEN} fires")
        assert seen - BROKEN - BESIDES == set()
        for (name, step), cause in WHY.items():
            assert causes(service, name, step)[0] == cause, (name, step)
        assert ("errors", "orders") in causes(service, PUT_ASIDE, "out"), "the good records flow on"

        mend_what_is_cheap(service, broker, orders, tmp_path)
        mended = {each for each in BROKEN if each[1] in (STALLED, SLOW_SINK, FAILING)}
        prometheus.until(lambda prometheus: not lit(prometheus) & mended, what=f"{mended} resolve")

        broker.kill()
        # The source of the slow sink may wait for room still, and asks nobody meanwhile.
        unreachable = {("SourceUnreachable", name, "orders") for name in (HEALTHY, STALLED, PUT_ASIDE)}
        unreachable |= {("SinkUnreachable", name, "out") for name in (HEALTHY, STALLED, SLOW_SINK)}
        unreachable |= {("SinkUnreachable", PUT_ASIDE, "rejected")}  # which has nothing to write
        prometheus.until(lambda prometheus: lit(prometheus) >= unreachable, what=f"{unreachable} fire")
        assert {alert for alert, name, _ in lit(prometheus) if name == HEALTHY} == {
            "SourceUnreachable",
            "SinkUnreachable",
        }
        assert causes(service, HEALTHY, "out")[0] in [("unreachable", "orders"), ("unreachable", "out")]

        broker.start()
        prometheus.until(lambda prometheus: not lit(prometheus) & unreachable, what=f"{unreachable} resolve")


def break_everything(broker: Broker, orders: Orders) -> None:
    """But the broker: a partition falls silent, a record is none, a sink takes a tenth of what comes. Two more are too
    slow from the start."""
    orders.both = False
    broker.produce("poisoned", [b"{broken"])
    broker.limit_writes(ailing.SINK_BYTES_PER_S)


def mend_what_is_cheap(service: Service, broker: Broker, orders: Orders, folder: Path) -> None:
    """The partition, the sink, and the file of the one that failed."""
    orders.both = True
    broker.limit_writes(None)
    file = folder / f"{FAILING}.yaml"
    file.write_text(file.read_text().replace('"topic": "poisoned"', '"errors": "skip", "topic": "poisoned"'))
    apply(service, folder, FAILING)


def knows_the_service(prometheus: Prometheus) -> bool:
    """Until it has been scraped it counts as down: nobody waits for that any more."""
    alerts = (*prometheus.alerts("pending"), *prometheus.alerts())
    return bool(prometheus.query('up{job="streamproc"}')) and all(alert.name != "ServiceDown" for alert in alerts)


def apply(service: Service, folder: Path, *names: str) -> None:
    """Put these files, as `streamproc apply` does."""
    with ServiceClient(Access(service.url)) as client:
        for name in names:
            yaml = (folder / f"{name}.yaml").read_bytes()
            client.put(name, yaml, plan=client.plan(name, yaml).id, drop_state=False)


def lit(prometheus: Prometheus) -> set[Lit]:
    """All that fire now."""
    return {
        (alert.name, alert.labels.get("pipeline", ""), alert.labels.get("step", "")) for alert in prometheus.alerts()
    }


def causes(service: Service, name: str, step: str) -> list[tuple[str, str | None]]:
    """What `why` finds, likeliest first: each cause, and who is to blame."""
    found = service.get(f"/v1/pipelines/{name}/why/{step}")["findings"]
    return [(each["cause"], each["node"]) for each in found]


def rows_out(service: Service, name: str) -> int:
    """Of a pipeline, so far."""
    rows: int = service.get(f"/v1/pipelines/{name}")["records_out"]
    return rows
