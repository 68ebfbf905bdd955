"""A sink as written → a logical sink."""

from __future__ import annotations

from collections.abc import Mapping

from operators.connector import ERRORS_SCHEMA
from operators.element import Schema
from streamproc.pipeline.columns import named_columns
from streamproc.pipeline.connections import check_topic, resolve_connection
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.format_rules import check_sink_format
from streamproc.pipeline.job_rules import check_transaction_timeout, check_url
from streamproc.pipeline.logical import LogicalSink, StreamRef
from streamproc.pipeline.shape import Part, Sink
from streamproc.pipeline.spec import BlackholeSinkSpec, FileSinkSpec, JobSpec, KafkaConnectionSpec, KafkaSinkSpec
from streamproc.pipeline.suggest import did_you_mean, listed
from streamproc.pipeline.verbs.verb import InputFacts


def plan_sink(
    name: str,
    part: Part[Sink],
    inputs: tuple[StreamRef, ...],
    facts: InputFacts,
    job: JobSpec,
    connections: Mapping[str, Part[KafkaConnectionSpec]],
    log: FaultLog,
) -> LogicalSink | None:
    """Check one sink."""
    spec = part.spec
    if spec is None:
        return None
    connection = None
    schema = facts.schema
    carries_errors = bool(inputs) and all(ref.tag == "errors" for ref in inputs)
    if isinstance(spec, KafkaSinkSpec):
        connection = resolve_connection(spec, part, connections, log)
        check_topic(spec.topic, part, log)
        _check_key(spec, schema, carries_errors, part, log)
        _check_updates_by_key(spec, facts, part, log)
        if spec.delivery == "exactly_once" and "transaction_timeout" not in part.broken:
            check_transaction_timeout(part, spec.transaction_timeout, job, log)
        if carries_errors and part.has("format"):
            message = "errors streams go to Kafka as the original records: there is no format to choose"
            log.error((*part.path, "format"), message, at_key=True)
    if isinstance(spec, FileSinkSpec):
        check_url(spec.path, (*part.path, "path"), log)
        if facts.changelog is not None:
            message = f"a file only grows, and rows of '{facts.name}' are updated and taken back"
            hint = "write it to a Kafka sink with a `key`, or give final rows only: with a window and `emit: on_close`"
            log.error((*part.path, "input"), message, hint)
    if not isinstance(spec, BlackholeSinkSpec) and not carries_errors:
        check_sink_format(spec.type, spec.format, schema, part.path, log)
    return LogicalSink(
        name=name,
        config=spec,
        connection=connection,
        streams=inputs,
        schema=dict(ERRORS_SCHEMA) if carries_errors else schema,
        parallelism=spec.parallelism or job.parallelism,
        changelog=facts.changelog,
        carries_errors=carries_errors,
    )


def _check_updates_by_key(spec: KafkaSinkSpec, facts: InputFacts, part: Part[Sink], log: FaultLog) -> None:
    """A changelog becomes one record for each key, the newest: every row needs a key of its own."""
    if facts.changelog is None or part.is_wrong("key"):
        return
    own = facts.changelog.key
    if spec.key is None:
        message = f"rows of '{facts.name}' are updated and taken back, which a topic can only take by key"
        example = f": `key: [{', '.join(own)}]`" if own else " in `key`"
        log.error((*part.path, "input"), message, f"name the columns that tell rows apart{example}")
        return
    missing = [name for name in own or () if name not in spec.key]
    if missing:
        message = f"rows that differ in {listed(map(repr, missing))} would overwrite each other"
        log.error((*part.path, "key"), message, f"write `key: [{', '.join([*spec.key, *missing])}]`", at_key=True)


def _check_key(spec: KafkaSinkSpec, schema: Schema, carries_errors: bool, part: Part[Sink], log: FaultLog) -> None:
    path = part.path
    if spec.key is None and not part.is_wrong("key"):
        return
    if carries_errors:
        message = "errors streams go to Kafka with their original keys: there is no key to choose"
        log.error((*path, "key"), message, at_key=True)
        return
    key = named_columns(part.written["key"]) or []
    if not key and not part.is_wrong("key"):
        log.error((*path, "key"), "must name at least one column", "leave it out to spread records evenly")
    for position, (at, name) in enumerate(key):
        if name not in schema:
            log.error((*path, "key", *at), f"unknown column '{name}'", did_you_mean(name, schema))
        elif any(name == before for _, before in key[:position]):
            log.error((*path, "key", *at), f"'{name}' is named twice")
