"""Options are what the file says, refused where they cannot work; secrets show nowhere."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from streamproc.connectors.kafka.aiokafka_private import Client
from streamproc.connectors.kafka.broker_errors import Contact, NoConnection, Unreachable
from streamproc.connectors.kafka.client import backoff_s, client_options, missing_topic_text
from streamproc.connectors.kafka.failure import KafkaRefused
from streamproc.pipeline.spec import KafkaConnectionSpec


def connection(**security: Any) -> KafkaConnectionSpec:
    return KafkaConnectionSpec.model_validate({"brokers": ["a:9092", "b:9092"], "security": security})


def test_plaintext() -> None:
    options = client_options(connection())
    assert options["bootstrap_servers"] == ["a:9092", "b:9092"]
    assert "security_protocol" not in options


def test_tls_checks_host_names_and_certificates() -> None:
    options = client_options(connection(tls=True))
    assert options["security_protocol"] == "SSL"
    assert options["ssl_context"].check_hostname
    assert options["ssl_context"].verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_sasl_with_tls(mechanism: str) -> None:
    options = client_options(connection(tls=True, sasl={"mechanism": mechanism, "username": "u", "password": "p"}))
    assert options["security_protocol"] == "SASL_SSL"
    assert (options["sasl_mechanism"], options["sasl_plain_username"], options["sasl_plain_password"]) == (
        mechanism,
        "u",
        "p",
    )


async def test_oauthbearer_gives_its_token_and_hides_it() -> None:
    options = client_options(connection(tls=True, sasl={"mechanism": "OAUTHBEARER", "token": "s3cret"}))
    assert await options["sasl_oauth_token_provider"].token() == "s3cret"
    assert "s3cret" not in repr(options)


def test_secrets_do_not_show_in_a_spec() -> None:
    spec = connection(
        tls={"key_password": "s3cret"}, sasl={"mechanism": "SCRAM-SHA-512", "username": "u", "password": "s3cret"}
    )
    assert "s3cret" not in repr(spec)
    assert "s3cret" not in str(spec)


@pytest.mark.parametrize(
    ("security", "words"),
    [
        ({"sasl": {"mechanism": "PLAIN", "username": "u", "password": "p"}}, "allow_without_tls"),
        ({"sasl": {"mechanism": "OAUTHBEARER", "token": "t"}}, "allow_without_tls"),
        ({"sasl": {"mechanism": "SCRAM-SHA-256", "username": "u"}}, "password"),
        ({"tls": True, "sasl": {"mechanism": "OAUTHBEARER"}}, "token"),
    ],
)
def test_what_cannot_work_is_refused_in_words_that_help(security: dict[str, Any], words: str) -> None:
    with pytest.raises(KafkaRefused, match=words):
        client_options(connection(**security))


def test_plain_without_tls_when_forced() -> None:
    sasl = {"mechanism": "PLAIN", "username": "u", "password": "p", "allow_without_tls": True}
    assert client_options(connection(sasl=sasl))["security_protocol"] == "SASL_PLAINTEXT"


def test_a_missing_or_broken_certificate_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(KafkaRefused, match="no-such-ca"):
        client_options(connection(tls={"ca": str(tmp_path / "no-such-ca.pem")}))
    broken = tmp_path / "client.pem"
    broken.write_text("not a certificate")
    with pytest.raises(KafkaRefused, match=r"client\.pem"):
        client_options(connection(tls={"certificate": str(broken)}))


def test_pauses_grow_and_stay_bounded() -> None:
    pauses = [backoff_s(attempt) for attempt in range(1, 100)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.25, 5.0)


def test_a_missing_topic_names_near_ones_and_the_command() -> None:
    text = missing_topic_text("order", ["orders", "__consumer_offsets", "payments"], why="source orders")
    assert "Did you mean 'orders'?" in text
    assert "--create --topic order" in text
    assert "Did you mean" not in missing_topic_text("order", [], why="source orders")


async def test_an_address_that_is_wrong_is_said_to_be() -> None:
    contact = Contact()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"  # nobody listens there any more
    client = Client(client_options(KafkaConnectionSpec.model_validate({"brokers": [address]})))
    try:
        with pytest.raises(NoConnection) as nobody:
            await client.start()
    finally:
        await client.close()
    contact.lost("start", nobody.value)
    assert contact.trouble == f"the broker does not answer ({address}: Connection refused)"
    contact.lost("start", Unreachable("NodeNotReadyError: node id 1"))
    assert contact.trouble == "the broker does not answer"
