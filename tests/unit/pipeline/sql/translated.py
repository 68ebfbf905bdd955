"""Queries over Nexmark's tables, translated without planning the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operators.element import Schema
from operators.types import parse_type
from streamproc.pipeline.columns import AnyColumns
from streamproc.pipeline.sql.fault import SqlFault
from streamproc.pipeline.sql.rows import Stream
from streamproc.pipeline.sql.steps import Step
from streamproc.pipeline.sql.translate import translate


def stream(*, event_time: str | None = "ts", changelog: bool = False, **columns: str) -> Stream:
    """A stream with columns of the types named."""
    schema = {name: parse_type(dtype).dtype for name, dtype in columns.items()}
    return Stream(schema, event_time, timed=event_time is not None, changelog=changelog)


STREAMS = {
    "bid": stream(auction="int64", bidder="int64", price="int64", channel="string", ts="timestamp_ms"),
    "auction": stream(id="int64", seller="int64", category="int64", reserve="int64", ts="timestamp_ms"),
    "person": stream(id="int64", name="string", state="string", ts="timestamp_ms"),
    "totals": stream(id="int64", amount="int64", event_time=None, changelog=True),
    "prices": stream(item="int64", price="decimal(10,2)", weight="float64", small="int32", at="timestamp_us"),
}


def steps(query: str, *, ttl: str | None = None, streams: Mapping[str, Stream] = STREAMS) -> dict[str, dict[str, Any]]:
    """The steps of a query called `q`."""
    return {step.name: dict(step.mapping) for step in all_steps(query, ttl=ttl, streams=streams)}


def only_step(query: str, *, ttl: str | None = None) -> dict[str, Any]:
    """The one step of a query that needs no more."""
    found = steps(query, ttl=ttl)
    assert list(found) == ["q"], found
    return found["q"]


def all_steps(query: str, *, ttl: str | None = None, streams: Mapping[str, Stream] = STREAMS) -> list[Step]:
    """The steps with their places, in the order in which they are planned."""
    written: list[Step] = []

    def plan(step: Step) -> Schema:
        written.append(step)
        return AnyColumns()

    translate(query, "q", streams, plan, ttl=ttl)
    return written


def fault_of(query: str) -> tuple[str, str]:
    """What is wrong with a query: the message with its remedy, and the text from its place on."""
    try:
        steps(query)
    except SqlFault as fault:
        return str(fault), query[fault.offset :]
    raise AssertionError("the query has no fault")
