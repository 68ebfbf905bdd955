"""A look-up join as written → its operator: what is looked up where, by which columns, and what may be asked.

`match` has at least one equality between the sides. A file is joined by its equalities; a server is asked by the
columns in its URL, and what it answers has to meet all of `match`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import urlsplit

import polars as pl
from sqlglot import exp

from operators.element import Schema
from operators.expression import ExpressionError, Scalar, TypeNotKnown, compile_predicate, compile_scalar
from operators.expression.syntax import full_sql_of, parse
from operators.types import UNKNOWN, FieldType, name_of
from streamproc.functions.calls import CallLimits
from streamproc.lookup.file_table import TableFile
from streamproc.lookup.http_client import PLACE, HttpEndpoint, host_of, is_refused
from streamproc.lookup.join import LEFT, RIGHT, KeyPair, LookupJoinSpec
from streamproc.pipeline import expressions
from streamproc.pipeline.columns import AnyColumns, GuessedColumns, read_fields
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.spec import FileSourceSpec, JoinSpec, LookupSpec
from streamproc.pipeline.suggest import did_you_mean, listed
from streamproc.pipeline.verbs.verb import PlannedStep, VerbContext

_KINDS: Final = ("inner", "left")
_OF_OTHER_JOINS: Final = ("right", "within", "window", "as_of", "ttl")
_ONLY_HTTP: Final = ("timeout", "retries", "in_flight", "headers", "allow_hosts", "cache")
_ONLY_FILE: Final = ("format", "refresh")
_IN_A_URL: Final = (pl.Float32, pl.Float64, pl.Binary, pl.List, pl.Struct, pl.Datetime)
_OTHER_FORMATS: Final = ("avro", "protobuf", "debezium-json")


def plan(context: VerbContext, planned: PlannedStep) -> None:
    """Fill in a step whose `join` has a `lookup`."""
    join = context.spec.join
    if join is None or join.lookup is None:
        return
    log, path, lookup = context.log, (*context.path, "join"), join.lookup
    [left] = context.inputs[:1]
    planned.changelog, planned.timed = None, left.timed
    context.refuse_changelog(left, (*path, "left"), "a look-up join", "look up before the step that updates its rows")
    _check_fields(join, context, path)
    fields = read_fields(lookup.schema_, (*path, "lookup", "schema"), log)
    right = {RIGHT + name: UNKNOWN if field is None else field.dtype for name, field in fields.items()}
    both: Schema = {LEFT + name: dtype for name, dtype in left.schema.items()} | right
    planned.schema = AnyColumns() if isinstance(left.schema, AnyColumns | GuessedColumns) else both
    if isinstance(left.schema, AnyColumns | GuessedColumns):
        return
    whole = expressions.predicate(join.match, both, (*path, "match"), log)
    if whole is None:
        return
    keys, rest = _split(join.match, both)
    planned.shared_names = frozenset(
        pair.left.text.removeprefix(LEFT)
        for pair in keys
        if pair.left.text.removeprefix(LEFT) == pair.right.text.removeprefix(RIGHT)
    )
    if not keys:
        hint = "for example left.country = right.code"
        log.error((*path, "match"), "needs an equality between a left and a right column", hint)
    endpoint = _endpoint(lookup, left.schema, (*path, "lookup"), log) if lookup.http is not None else None
    known = {name: field for name, field in fields.items() if field is not None}
    if log.failed or (lookup.file is None and endpoint is None):
        return
    kind = cast(Literal["inner", "left"], join.kind)
    if endpoint is not None:
        planned.operators.append(
            LookupJoinSpec(
                kind, left.schema, known, tuple(keys), whole, join.match, endpoint, lookup.cache, context.errors
            )
        )
        return
    table = _table(lookup, known, context.folder)
    planned.operators.append(
        LookupJoinSpec(kind, left.schema, known, tuple(keys), rest, join.match, table, lookup.cache, context.errors)
    )


def _check_fields(join: JoinSpec, context: VerbContext, path: FieldPath) -> None:
    log, lookup = context.log, join.lookup
    assert lookup is not None
    if join.kind not in _KINDS:
        log.error((*path, "kind"), f"a look-up join is {listed(_KINDS, 'or')}, not {join.kind}")
    written: Any = context.part.written["join"]
    for name in _OF_OTHER_JOINS:
        if written.get(name) is not None:
            log.error((*path, name), f"'{name}' is for joins of two streams, and 'lookup' is here", at_key=True)
    at = (*path, "lookup")
    if (lookup.file is None) == (lookup.http is None):
        message = "needs 'file' or 'http'" if lookup.file is None else "has both 'file' and 'http': give one"
        log.error(at, message, at_key=True)
        return
    word, foreign = ("file", _ONLY_HTTP) if lookup.http is None else ("http", _ONLY_FILE)
    for name in foreign:
        if name in written.get("lookup", {}):
            log.error((*at, name), f"'{name}' means nothing where a look-up has '{word}'", at_key=True)
    if lookup.http is None and lookup.format.type in _OTHER_FORMATS:
        log.error((*at, "format"), "a look-up file is json, csv or parquet")


def _split(text: str, both: Schema) -> tuple[list[KeyPair], Scalar | None]:
    """The equalities between the sides, and the condition that the rest of `match` is. It does compile."""
    pairs: list[KeyPair] = []
    rest: list[str] = []
    for part in _conjuncts(parse(text)):
        pair = _key_pair(part, both) if isinstance(part, exp.EQ) else None
        if pair is not None:
            pairs.append(pair)
        else:
            rest.append(f"({full_sql_of(part)})")
    return pairs, compile_predicate(" and ".join(rest), both) if rest else None


def _conjuncts(node: exp.Expression) -> Iterator[exp.Expression]:
    if isinstance(node, exp.Paren):
        yield from _conjuncts(node.this)
    elif isinstance(node, exp.And):
        yield from _conjuncts(node.args["this"])
        yield from _conjuncts(node.args["expression"])
    else:
        yield node


def _key_pair(part: exp.EQ, both: Schema) -> KeyPair | None:
    """None where one of the two is not of one side, or their types are compared in no single one."""
    try:
        sides = [compile_scalar(full_sql_of(side), both) for side in (part.args["this"], part.args["expression"])]
    except (ExpressionError, TypeNotKnown):
        return None
    of = [{LEFT if column in both and column.startswith(LEFT) else RIGHT for column in side.columns} for side in sides]
    if of == [{RIGHT}, {LEFT}]:
        sides.reverse()
    elif of != [{LEFT}, {RIGHT}]:
        return None
    dtype = _common(sides[0].dtype, sides[1].dtype)
    return None if dtype is None else KeyPair(sides[0], sides[1], dtype)


def _common(left: pl.DataType, right: pl.DataType) -> pl.DataType | None:
    if left == right:
        return left
    if left.is_integer() and right.is_integer():
        return pl.Int64()
    if isinstance(left, pl.Datetime) and isinstance(right, pl.Datetime):
        return pl.Datetime("us", "UTC")
    if left.is_numeric() and right.is_numeric() and not (left.is_decimal() or right.is_decimal()):
        return pl.Float64()
    return None


def _table(lookup: LookupSpec, fields: dict[str, FieldType], folder: Path) -> TableFile:
    assert lookup.file is not None
    local = "://" not in lookup.file and not re.match(r"\w+:", lookup.file)
    path = str((folder / lookup.file).absolute()) if local else lookup.file
    config = FileSourceSpec.model_validate(
        {"type": "file", "path": path, "format": lookup.format, "schema": lookup.schema_}
    )
    return TableFile(config, fields, lookup.refresh)


def _endpoint(lookup: LookupSpec, left: Schema, path: FieldPath, log: FaultLog) -> HttpEndpoint | None:
    url, at = lookup.http or "", (*path, "http")
    parts = urlsplit(PLACE.sub("x", url))
    host = host_of(url)
    if parts.scheme not in ("http", "https") or not host:
        log.error(at, "must be an http or https URL", "for example https://host/users/{user_id}")
        return None
    if PLACE.search(url.split("//", 1)[-1].split("/", 1)[0].split("?", 1)[0]):
        log.error(at, "the host must stand in the file: it cannot come from a column")
        return None
    if is_refused(host):
        log.error(at, f"'{host}' is an address of the local link, which is never asked")
    if lookup.allow_hosts is not None and host not in [allowed.lower() for allowed in lookup.allow_hosts]:
        log.error(at, f"the host '{host}' is not in 'allow_hosts'")
    places = list(dict.fromkeys(PLACE.findall(url)))
    if not places:
        log.error(at, "has no place for a column", "write one in braces: https://host/users/{user_id}")
    for name in places:
        dtype = left.get(name)
        if dtype is None:
            log.error(at, f"unknown column '{name}' of the left side", did_you_mean(name, left))
        elif isinstance(dtype, _IN_A_URL):
            log.error(
                at, f"'{name}' is {name_of(dtype)}: it has no one way to be written in a URL", "cast it to string"
            )
    limits = CallLimits(lookup.in_flight, lookup.timeout, lookup.retries)
    return HttpEndpoint(url, lookup.headers, limits)
