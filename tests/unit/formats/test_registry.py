"""The client of a schema registry: patient where waiting helps, clear where it does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamproc.formats.registry import RegistryRefused, RegistryUnavailable, SchemaRegistry
from streamproc.pipeline.format_spec import RegistrySpec
from tests.registry import Registry, serve_registry

ONE = '{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}'
OTHER = '{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}'


@pytest.fixture
def served() -> Iterator[Registry]:
    with serve_registry() as registry:
        yield registry


def client(registry: Registry, **more: str) -> SchemaRegistry:
    return SchemaRegistry(RegistrySpec(url=registry.url + "/", **more), "sink out", deadline_s=1.0)


def test_registers_once_and_looks_up(served: Registry) -> None:
    registry = client(served)
    assert registry.register("out-value", "AVRO", ONE) == 1
    assert registry.register("out-value", "AVRO", ONE) == 1
    assert registry.look_up("out-value", "AVRO", ONE) == 1
    found = registry.schema(1)
    assert found is not None
    assert (found.type, found.text) == ("AVRO", ONE)
    assert registry.schema(2) is None


def test_an_incompatible_schema_names_the_subject_and_the_reason(served: Registry) -> None:
    registry = client(served)
    registry.register("out/value", "AVRO", ONE)
    with pytest.raises(RegistryRefused, match=r"sink out: .*'out/value'.*field a \(error 409\)") as refused:
        registry.register("out/value", "AVRO", OTHER)
    assert not refused.value.retry_helps


def test_what_is_not_registered_where_it_must_be(served: Registry) -> None:
    registry = client(served)
    with pytest.raises(RegistryRefused, match=r"(?s)not registered under subject 'out-value'.*40401.*auto_register"):
        registry.look_up("out-value", "AVRO", ONE)
    registry.register("out-value", "AVRO", ONE)
    with pytest.raises(RegistryRefused, match="40403"):
        registry.look_up("out-value", "AVRO", OTHER)


def test_credentials(served: Registry) -> None:
    served.credentials = ("svc", "swordfish")
    with pytest.raises(RegistryRefused, match="refuses our credentials") as refused:
        client(served, username="svc", password="wrong-one").schema(1)
    assert "wrong-one" not in str(refused.value)
    assert client(served, username="svc", password="swordfish").schema(1) is None


def test_failures_that_pass_are_waited_out_and_others_help_to_retry(served: Registry) -> None:
    served.failures = 2
    assert client(served).register("out-value", "AVRO", ONE) == 1
    served.failures = 1000
    with pytest.raises(RegistryUnavailable, match="50301") as unavailable:
        client(served).schema(1)
    assert unavailable.value.retry_helps
    nowhere = SchemaRegistry(RegistrySpec(url="http://127.0.0.1:1"), "source s", deadline_s=0.3)
    with pytest.raises(RegistryUnavailable, match=r"source s: the schema registry .* gave no answer"):
        nowhere.schema(1)
