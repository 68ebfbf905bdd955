"""Connectors by the `type` a pipeline file names. Each is imported when first used."""

from __future__ import annotations

from operators.connector import Sink, Source
from streamproc.pipeline.logical import LogicalGraph, LogicalSink, LogicalSource, SuppliedSink, SuppliedSource
from streamproc.pipeline.spec import (
    DatagenSourceSpec,
    FileSinkSpec,
    FileSourceSpec,
    KafkaSinkSpec,
    KafkaSourceSpec,
    PrintSinkSpec,
)


def load_connectors(graph: LogicalGraph) -> None:
    """Import what the connectors of a pipeline need: longer than an event loop may be kept from its work."""
    for source in graph.sources.values():
        make_source(source)
    for sink in graph.sinks.values():
        make_sink(graph.pipeline, sink)


def make_source(source: LogicalSource) -> Source:
    """The source a pipeline file describes."""
    config = source.config
    if isinstance(config, SuppliedSource):
        return config.source
    required = (source.event_time.column,) if source.event_time else ()
    if isinstance(config, KafkaSourceSpec):
        from streamproc.connectors.kafka.source import KafkaSource

        assert source.connection is not None, "the planner resolves connections"
        return KafkaSource(source.name, config, source.connection, source.fields, required=required)
    if isinstance(config, FileSourceSpec):
        from streamproc.connectors.file_source import FileSource

        return FileSource(source.name, config, source.fields, required=required)
    assert isinstance(config, DatagenSourceSpec)
    from streamproc.connectors.datagen import DatagenSource

    return DatagenSource(source.name, config)


def make_sink(pipeline: str, sink: LogicalSink) -> Sink:
    """The sink a pipeline file describes."""
    config = sink.config
    if isinstance(config, SuppliedSink):
        return config.sink
    if isinstance(config, KafkaSinkSpec):
        from streamproc.connectors.kafka.sink import KafkaSink

        assert sink.connection is not None, "the planner resolves connections"
        return KafkaSink(pipeline, sink.name, config, sink.connection, sink.schema, carries_errors=sink.carries_errors)
    if isinstance(config, FileSinkSpec):
        from streamproc.connectors.file_sink import FileSink

        return FileSink(pipeline, sink.name, config, sink.schema)
    if isinstance(config, PrintSinkSpec):
        from streamproc.connectors.print_sink import PrintSink

        return PrintSink(sink.name, config, sink.schema, changelog=sink.changelog is not None)
    from streamproc.connectors.blackhole import BlackholeSink

    return BlackholeSink()
