"""`format` as a pipeline file says it: one model per format.

Shape only; whether a connector takes a format, and a format a schema, is checked in `format_rules`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from streamproc.pipeline.model import Model

HTTP_URL: Final = r"^https?://"
MESSAGE_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"


class RegistrySpec(Model):
    """A schema registry with Confluent's REST API. `ca`: a file of certificates to trust instead of the system's."""

    url: str = Field(pattern=HTTP_URL)
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    ca: str | None = None


def _registry(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


RegistryField = Annotated[RegistrySpec, BeforeValidator(_registry, json_schema_input_type=str | RegistrySpec)]


class JsonFormat(Model):
    type: Literal["json"] = "json"
    timestamps: Literal["iso", "epoch_ms"] = "iso"


class CsvFormat(Model):
    type: Literal["csv"]
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    header: bool = True


class ParquetFormat(Model):
    type: Literal["parquet"]


class RegistryFormat(Model):
    """What avro and protobuf share. A sink registers its schema under `subject` (default: `<topic>-value`), or with
    `auto_register: false` uses the one that is registered there; a source takes both as given by each record."""

    registry: RegistryField
    subject: str | None = Field(default=None, min_length=1)
    auto_register: bool = True


class AvroFormat(RegistryFormat):
    type: Literal["avro"]


class ProtobufFormat(RegistryFormat):
    """`message`: the name of the message; a sink's own schema has it (default: `Row`), a source refuses others."""

    type: Literal["protobuf"]
    message: str | None = Field(default=None, pattern=MESSAGE_NAME)


class DebeziumJsonFormat(Model):
    """Changes of a table as Debezium writes them. `key`: the columns that tell rows apart (None: the whole row)."""

    type: Literal["debezium-json"]
    key: list[str] | None = Field(default=None, min_length=1)


FormatSpec = Annotated[
    JsonFormat | CsvFormat | ParquetFormat | AvroFormat | ProtobufFormat | DebeziumJsonFormat,
    Field(discriminator="type"),
]
FormatName = Literal["json", "csv", "parquet", "avro", "protobuf", "debezium-json"]


def _format(value: object) -> Any:
    return {"type": value} if isinstance(value, str) else value


FormatField = Annotated[FormatSpec, BeforeValidator(_format, json_schema_input_type=FormatName | FormatSpec)]
