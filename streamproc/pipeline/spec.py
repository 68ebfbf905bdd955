"""A pipeline file as typed values: one model per thing a user writes, field names as in the file.

These models check shape only (types, required fields, unknown fields). What needs the whole file,
a schema or an expression is checked in `streamproc.pipeline.planner`, which turns a spec into a
logical graph.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from operators.explanation import UNIT_MS
from streamproc.pipeline.format_spec import FormatField, JsonFormat
from streamproc.pipeline.model import Model

NAME = r"^[a-z][a-z0-9_-]{0,62}$"
PIPELINE_NAME = r"^[a-z][a-z0-9-]{0,62}$"

_DURATION = re.compile(r"(-?)([0-9]{1,15})(ms|s|m|h|d)")
_DURATION_DAYS_MAX = 36_500


def parse_duration(value: object) -> int:
    """`500ms`, `10s`, `1m`, `2h`, `1d` (or `-5m`) as milliseconds."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        ms = int(match[2]) * UNIT_MS[match[3]]
        if ms > _DURATION_DAYS_MAX * UNIT_MS["d"]:
            raise ValueError(f"{value!r} is longer than {_DURATION_DAYS_MAX}d")
        return -ms if match[1] else ms
    raise ValueError(f"{value!r} is not a duration: write 500ms, 10s, 1m, 2h or 1d")


def is_duration(text: str) -> bool:
    """Whether a text is a duration of a file."""
    return _DURATION.fullmatch(text.strip()) is not None


def _parse_positive(value: object) -> int:
    ms = parse_duration(value)
    if ms <= 0:
        raise ValueError(f"{value!r}: this duration must be more than zero")
    return ms


def _parse_not_negative(value: object) -> int:
    ms = parse_duration(value)
    if ms < 0:
        raise ValueError(f"{value!r}: this duration cannot be negative")
    return ms


def _duration_schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": ["500ms", "10s", "1m", "2h", "1d"]})


PositiveDuration = Annotated[int, BeforeValidator(_parse_positive), _duration_schema(r"^0*[1-9][0-9]*(ms|s|m|h|d)$")]
Duration = Annotated[int, BeforeValidator(parse_duration), _duration_schema(r"^-?[0-9]+(ms|s|m|h|d)$")]
NonNegativeDuration = Annotated[int, BeforeValidator(_parse_not_negative), _duration_schema(r"^[0-9]+(ms|s|m|h|d)$")]


def _expression_text(value: object) -> object:
    """`1` and `true` are expressions, too."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Expression = Annotated[str, BeforeValidator(_expression_text, json_schema_input_type=str | int | float | bool)]


ErrorPolicyName = Literal["fail", "skip", "dlq"]
Inputs = str | list[str]


class CheckpointSpec(Model):
    every: PositiveDuration = 10_000
    timeout: PositiveDuration = 600_000
    keep: int = Field(default=3, ge=1, le=1000)
    tolerate_failures: int = Field(default=3, ge=0, le=100)
    storage: str = "file:.streamproc/checkpoints"


class RestartSpec(Model):
    strategy: Literal["backoff", "fixed", "none"] = "backoff"
    initial: PositiveDuration = 1_000
    max: PositiveDuration = 60_000
    reset_after: PositiveDuration = 600_000
    attempts: int = Field(default=3, ge=0)
    delay: NonNegativeDuration = 5_000


class BatchSpec(Model):
    max_rows: int = Field(default=16_384, ge=1, le=1_000_000)
    max_delay: NonNegativeDuration = 50


class JobSpec(Model):
    parallelism: int = Field(default=1, ge=1, le=1024)
    max_parallelism: int = Field(default=128, ge=1, le=32_768)
    checkpoint: CheckpointSpec = CheckpointSpec()
    restart: RestartSpec = RestartSpec()
    batch: BatchSpec = BatchSpec()
    errors: ErrorPolicyName = "fail"


class SaslSpec(Model):
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    token: str | None = Field(default=None, repr=False)
    allow_without_tls: bool = False


class TlsSpec(Model):
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    key_password: str | None = Field(default=None, repr=False)


class SecuritySpec(Model):
    sasl: SaslSpec | None = None
    tls: TlsSpec | bool | None = None


class KafkaConnectionSpec(Model):
    type: Literal["kafka"] = "kafka"
    brokers: list[str] = Field(min_length=1)
    security: SecuritySpec = SecuritySpec()


class EventTimeSpec(Model):
    column: str
    out_of_order: NonNegativeDuration = 0
    idle_after: PositiveDuration | None = None


MetadataColumn = Literal["key", "partition", "offset", "timestamp", "topic", "headers"]
SchemaSpec = dict[str, Any]  # name → a type's text, or a nested mapping; read by operators.types.parse_type


class StartTimestamp(Model):
    timestamp: str


class SourceBase(Model):
    event_time: EventTimeSpec | None = None
    errors: ErrorPolicyName | None = None
    parallelism: int | None = Field(default=None, ge=1, le=1024)


class KafkaSourceSpec(SourceBase):
    type: Literal["kafka"]
    connection: str | None = None
    brokers: list[str] | None = Field(default=None, min_length=1)
    security: SecuritySpec | None = None
    topic: str
    start: Literal["earliest", "latest"] | StartTimestamp = "earliest"
    stop: Literal["never", "latest"] = "never"
    format: FormatField = JsonFormat()
    schema_: SchemaSpec = Field(alias="schema", min_length=1)
    metadata: dict[str, MetadataColumn] = {}


class FileSourceSpec(SourceBase):
    type: Literal["file"]
    path: str
    format: FormatField = JsonFormat()
    schema_: SchemaSpec = Field(alias="schema", min_length=1)
    follow: bool = False


class DatagenSourceSpec(SourceBase):
    type: Literal["datagen"]
    table: Literal["bid", "auction", "person"] | None = None
    columns: dict[str, Any] | None = None
    rows: int | None = Field(default=None, ge=0)
    rate: int | None = Field(default=None, ge=1)  # rows a second over all subtasks; None: as fast as it goes
    seed: int = 1


SourceSpec = Annotated[KafkaSourceSpec | FileSourceSpec | DatagenSourceSpec, Field(discriminator="type")]


class HopSpec(Model):
    size: PositiveDuration
    every: PositiveDuration


class CumulateSpec(Model):
    size: PositiveDuration
    every: PositiveDuration


class WindowSpec(Model):
    tumble: PositiveDuration | None = None
    hop: HopSpec | None = None
    session: PositiveDuration | None = None
    cumulate: CumulateSpec | None = None
    offset: NonNegativeDuration = 0


WindowField = Literal["input"] | WindowSpec  # "input": the windows that the rows already carry


class LateSpec(Model):
    accept_for: NonNegativeDuration = 0
    then: Literal["drop", "side_output"] = "drop"


class EmitEvery(Model):
    every: PositiveDuration


FOREVER: Final = 0  # a TTL that never comes


def _ttl(value: object) -> int:
    try:
        return FOREVER if value == "forever" else _parse_positive(value)
    except ValueError as error:
        raise ValueError(str(error).replace("2h or 1d", "2h, 1d or forever")) from None


_TTL_SCHEMA = {
    "type": "string",
    "pattern": r"^(forever|0*[1-9][0-9]*(ms|s|m|h|d))$",
    "examples": ["1h", "7d", "forever"],
}
TtlField = Annotated[int, BeforeValidator(_ttl), WithJsonSchema(_TTL_SCHEMA)]  # ms, or FOREVER
JoinKind = Literal["inner", "left", "right", "full", "semi", "anti"]


class CacheSpec(Model):
    """What a look-up remembers: at most `rows` answers (misses too), each for `ttl`."""

    rows: int = Field(default=100_000, ge=1)
    ttl: PositiveDuration = 60_000


class LookupSpec(Model):
    """Enrichment from outside: a `file` (read whole, again every `refresh`) or an `http` URL with {column}
    places. `schema` are the columns of the answer."""

    file: str | None = None
    http: str | None = None
    format: FormatField = JsonFormat()
    schema_: SchemaSpec = Field(alias="schema", min_length=1)
    refresh: PositiveDuration | None = None
    cache: CacheSpec = CacheSpec()
    timeout: PositiveDuration = 2_000
    retries: int = Field(default=3, ge=0, le=100)
    in_flight: int = Field(default=50, ge=1, le=10_000)
    headers: dict[str, str] = {}
    allow_hosts: list[str] | None = None


class JoinSpec(Model):
    """One of `within`, `window`, `as_of`, `lookup`; else a regular join, with `ttl`."""

    left: str
    right: str | None = None  # a look-up has none
    kind: JoinKind = "inner"
    match: Expression
    within: Annotated[list[Duration], Field(min_length=2, max_length=2)] | None = None
    window: WindowField | None = None
    as_of: bool = False
    lookup: LookupSpec | None = None
    ttl: TtlField | None = None


class DeduplicateSpec(Model):
    key: list[str] = Field(min_length=1)
    keep: Literal["first", "last"] = "first"
    ttl: TtlField | None = None


class TopSpec(Model):
    n: int = Field(ge=1, le=1_000_000)
    by: Annotated[list[str], Field(min_length=1)]
    key: list[str] = []
    window: WindowField | None = None
    ties: bool = False
    rank: str | None = None
    ttl: TtlField | None = None


class PythonSpec(Model):
    call: str
    columns: SchemaSpec = Field(min_length=1)
    mode: Literal["batch", "row", "async"] = "batch"
    in_flight: int = Field(default=200, ge=1, le=10_000)
    timeout: PositiveDuration = 2_000
    retries: int = Field(default=0, ge=0, le=100)


class ProcessSpec(Model):
    call: str
    key: list[str] = Field(min_length=1)
    columns: SchemaSpec = Field(min_length=1)
    outputs: dict[str, SchemaSpec] = {}  # side outputs: read as `step.name`


class StepSpec(Model):
    input: Inputs | None = None  # a join reads its sides instead
    join: JoinSpec | None = None
    was: str | None = None
    where: Expression | None = None
    key: list[str] | None = None
    window: WindowField | None = None
    aggregate: dict[str, Expression] | None = Field(default=None, min_length=1)
    deduplicate: DeduplicateSpec | None = None
    top: TopSpec | None = None
    python: PythonSpec | None = None
    process: ProcessSpec | None = None
    sql: str | None = None
    ttl: TtlField | None = None  # of an aggregate without a window
    emit: Literal["on_close", "on_update"] | EmitEvery = "on_close"
    late: LateSpec = LateSpec()
    having: Expression | None = None
    select: dict[str, Expression] | list[str] | None = Field(default=None, min_length=1)
    add: dict[str, Expression] | None = Field(default=None, min_length=1)
    parallelism: int | None = Field(default=None, ge=1, le=1024)
    errors: ErrorPolicyName | None = None


class SinkBase(Model):
    input: Inputs
    parallelism: int | None = Field(default=None, ge=1, le=1024)


class KafkaSinkSpec(SinkBase):
    type: Literal["kafka"]
    connection: str | None = None
    brokers: list[str] | None = Field(default=None, min_length=1)
    security: SecuritySpec | None = None
    topic: str
    key: list[str] | None = None
    format: FormatField = JsonFormat()
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    transaction_timeout: PositiveDuration = 900_000


class FileSinkSpec(SinkBase):
    type: Literal["file"]
    path: str
    format: FormatField = JsonFormat()


class PrintSinkSpec(SinkBase):
    type: Literal["print"]
    format: FormatField = JsonFormat()


class BlackholeSinkSpec(SinkBase):
    type: Literal["blackhole"]


SinkSpec = Annotated[KafkaSinkSpec | FileSinkSpec | PrintSinkSpec | BlackholeSinkSpec, Field(discriminator="type")]


class ActionSpec(Model):
    """What a test does next: one of these."""

    watermark: str | None = None  # event time comes to it
    given: dict[str, list[dict[str, Any] | str]] | None = None  # more rows
    processing_time: PositiveDuration | None = None  # the wall clock goes on by it
    checkpoint: Literal[True] | None = None
    crash: Literal[True] | None = None
    end: Literal[True] | None = None  # of all input


def _action(value: object) -> object:
    return {value: True} if isinstance(value, str) else value


ActionField = Annotated[
    ActionSpec,
    BeforeValidator(_action, json_schema_input_type=Literal["checkpoint", "crash", "end"] | ActionSpec),
]


class CaseSpec(Model):
    """One entry of `tests`: rows by source, what happens then, rows by stream."""

    name: str = Field(min_length=1, max_length=200)
    given: dict[str, list[dict[str, Any] | str]] = {}
    then: list[ActionField] = []
    expect: dict[str, list[dict[str, Any]]] = Field(min_length=1)


class PipelineHead(Model):
    version: Literal[1]
    pipeline: str = Field(pattern=PIPELINE_NAME)


class PipelineSpec(PipelineHead):
    """A pipeline: where rows come from, what happens to them, where results go."""

    job: JobSpec = JobSpec()
    connections: dict[str, KafkaConnectionSpec] = {}
    sources: dict[str, SourceSpec] = Field(min_length=1)
    steps: dict[str, StepSpec] = {}
    sinks: dict[str, SinkSpec] = Field(min_length=1)
    tests: list[CaseSpec] = []
