"""Protobuf schemas: registered texts compiled by protoc, and the schema that a sink writes.

protoc (of grpcio-tools) runs as a process of its own, once for each schema: its errors come back as text, and
whatever a registered text does to it stays there.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from operators.element import Schema
from streamproc.formats.protocol import FormatError

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FileDescriptor

_PROTOC_S: Final = 30.0
_FILE: Final = "schema.proto"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TIMESTAMP: Final = "google.protobuf.Timestamp"


def compile_schema(text: str, references: Mapping[str, str]) -> FileDescriptor:
    """The descriptor of a registered text; `FormatError` with what protoc says of it."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool
    except ImportError as error:
        raise FormatError("protobuf needs more packages: pip install 'streamproc[protobuf]'") from error
    files = descriptor_pb2.FileDescriptorSet.FromString(_compiled(text, references))
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:  # dependencies come first
        pool.Add(file)
    return pool.FindFileByName(_FILE)


def _compiled(text: str, references: Mapping[str, str]) -> bytes:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in {**references, _FILE: text}.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise FormatError(f"{name!r} is not the name of a .proto file")
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        written = root / "descriptors"
        arguments = ["--proto_path=.", "--include_imports", f"--descriptor_set_out={written}", _FILE]
        try:
            # grpcio-tools adds the folder of Google's own .proto files by itself.
            done = subprocess.run(
                [sys.executable, "-m", "grpc_tools.protoc", *arguments],
                cwd=root,
                capture_output=True,
                timeout=_PROTOC_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise FormatError(f"protoc did not end within {_PROTOC_S:.0f} s") from error
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").splitlines()
            if any("No module named" in line for line in lines):
                raise FormatError("protobuf needs more packages: pip install 'streamproc[protobuf]'")
            said = [line for line in lines if ".proto:" in line] or ["no reason given"]
            raise FormatError(f"not a Protobuf schema: {said[0]}")
        return written.read_bytes()


def message_at(file: FileDescriptor, indexes: Sequence[int]) -> Descriptor:
    """The message that the wire format's indexes name; `FormatError` when there is none."""
    try:
        message: Descriptor = list(file.message_types_by_name.values())[indexes[0]]
        for index in indexes[1:]:
            message = message.nested_types[index]
    except IndexError as error:
        raise FormatError(f"the schema has no message {list(indexes)}") from error
    return message


def schema_text(columns: Schema, message: str) -> str:
    """The .proto text a sink writes (proto3): each value `optional`, so that null is not zero."""
    lines: list[str] = []
    package, _, name = message.rpartition(".")
    _message(lines, name, columns, "")
    head = ['syntax = "proto3";', ""]
    if package:
        head += [f"package {package};", ""]
    if any(_TIMESTAMP in line for line in lines):
        head += ['import "google/protobuf/timestamp.proto";', ""]
    return "\n".join([*head, *lines, ""])


def _message(lines: list[str], name: str, columns: Mapping[str, Any], indent: str) -> None:
    inner = indent + "  "
    lines.append(f"{indent}message {name} {{")
    for number, (column, dtype) in enumerate(columns.items(), start=1):
        if _NAME.fullmatch(column) is None:
            raise FormatError(f"{column}: a Protobuf name has only letters, digits and _")
        label = "repeated" if isinstance(dtype, pl.List) else "optional"
        item: Any = dtype.inner if isinstance(dtype, pl.List) else dtype
        if isinstance(item, pl.Struct):
            kind = f"{column}_row"
            _message(lines, kind, {member.name: member.dtype for member in item.fields}, inner)
        else:
            kind = _type_of(column, item)
        lines.append(f"{inner}{label} {kind} {column} = {number};")
    lines.append(f"{indent}}}")


def _type_of(column: str, dtype: pl.DataType) -> str:
    match dtype:
        case pl.Boolean():
            return "bool"
        case pl.Int8() | pl.Int16() | pl.Int32():
            return "int32"
        case pl.Int64():
            return "int64"
        case pl.Float32():
            return "float"
        case pl.Float64():
            return "double"
        case pl.Binary():
            return "bytes"
        case pl.String() | pl.Decimal() | pl.Date():
            return "string"
        case pl.Datetime():
            return _TIMESTAMP
        case pl.List():
            raise FormatError(f"{column}: Protobuf has no lists of lists")
    raise FormatError(f"{column}: Protobuf has no {dtype}")
