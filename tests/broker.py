"""One real Kafka broker (KRaft, from jars that Maven fetches), for tests and for people trying things out.

    python -m tests.broker --port 9092      starts one and says where; Ctrl-C stops it and deletes its files

The jars are cached in `$STREAMPROC_TEST_CACHE` (default `.cache/kafka` in the repository); a folder that
already holds them can be named in `$STREAMPROC_TEST_KAFKA_LIBS`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]

KAFKA_VERSION = "4.1.0"
SASL_USER = ("tester", "tester-secret")
_KEYSTORE_PASSWORD = "keystore-secret"
_START_TIMEOUT_S = 90.0

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>streamproc.tests</groupId><artifactId>kafka</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{KAFKA_VERSION}</version></dependency>
</dependencies></project>
"""

# Records of tests are stamped in the past: without `retention.ms=-1` they would be deleted within minutes.
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl},\
SSL://127.0.0.1:{tls},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl},SSL://localhost:{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,CONTROLLER:PLAINTEXT
ssl.keystore.type=PKCS12
ssl.keystore.location={directory}/broker.p12
ssl.keystore.password={keystore_password}
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{sasl_password}";
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={directory}/log
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
default.replication.factor=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500
num.network.threads=2
num.io.threads=4
log.cleaner.backoff.ms=500
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=1500
"""


_FORMAT = ("kafka.tools.StorageTool", "format")
_CONFIGURE = ("-XX:TieredStopAtLevel=1", "kafka.admin.ConfigCommand")


class BrokerUnavailable(RuntimeError):
    """No broker can be had here: no Java, no Maven, or it would not start; the message says which."""


class Broker:
    """A broker process under `directory`; the port stays the same over `stop` and `start`."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self._directory = directory
        free, self._controller, self._sasl, self._tls = _free_ports(4)
        self._port = port or free
        self._process: subprocess.Popen[bytes] | None = None
        self._admin_client: AdminClient | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` of the plaintext listener."""
        return f"127.0.0.1:{self._port}"

    @property
    def sasl_bootstrap(self) -> str:
        """`host:port` of the listener that wants SASL PLAIN as `SASL_USER`."""
        return f"127.0.0.1:{self._sasl}"

    @property
    def tls_bootstrap(self) -> str:
        """`host:port` of the TLS listener; its certificate is made out to `localhost` and signed by itself."""
        return f"localhost:{self._tls}"

    @property
    def certificate(self) -> Path:
        """The TLS listener's certificate (PEM)."""
        return self._directory / "broker.pem"

    # --- the process

    def start(self) -> None:
        """Start the broker (again) and wait until it answers."""
        self.launch()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                log = (self._directory / "stdout.log").read_text(errors="replace")
                raise BrokerUnavailable(f"the broker ended with {self._process.returncode}:\n{log[-2000:]}")
            with contextlib.suppress(KafkaException):
                if self._admin().list_topics(timeout=1).brokers:
                    return
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerUnavailable(f"the broker did not answer within {_START_TIMEOUT_S:.0f} s")

    def launch(self) -> None:
        """Start the process without waiting for it."""
        libraries = fetch_libraries()
        self._directory.mkdir(parents=True, exist_ok=True)
        properties = self._directory / "server.properties"
        properties.write_text(
            _PROPERTIES.format(
                port=self._port,
                controller=self._controller,
                sasl=self._sasl,
                tls=self._tls,
                directory=self._directory,
                user=SASL_USER[0],
                sasl_password=SASL_USER[1],
                keystore_password=_KEYSTORE_PASSWORD,
            )
        )
        if not self.certificate.exists():
            self._make_certificate()
        java = ["java", "-cp", f"{libraries}/*"]
        with (self._directory / "stdout.log").open("ab") as output:
            if not (self._directory / "log" / "meta.properties").exists():
                cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
                subprocess.run(
                    [*java, "-Xmx128m", *_FORMAT, f"--cluster-id={cluster}", "-c", str(properties)],
                    stdout=output,
                    stderr=output,
                    check=True,
                )
            self._process = subprocess.Popen(
                [*java, "-Xms512m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "kafka.Kafka", str(properties)],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal must reach us, not the broker
            )

    def _make_certificate(self) -> None:
        keytool = ["keytool", "-storetype", "PKCS12", "-keystore", str(self._directory / "broker.p12")]
        keytool += ["-storepass", _KEYSTORE_PASSWORD, "-alias", "broker"]
        make = [
            "-genkeypair",
            "-keyalg",
            "EC",
            "-dname",
            "CN=localhost",
            "-ext",
            "san=dns:localhost",
            "-validity",
            "30",
        ]
        subprocess.run([*keytool, *make], check=True, capture_output=True)
        subprocess.run(
            [*keytool, "-exportcert", "-rfc", "-file", str(self.certificate)], check=True, capture_output=True
        )

    def stop(self) -> None:
        """Stop in good order; the data stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9; the data stays."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: sockets stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)  # a paused process takes no SIGTERM
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    # --- topics and records, for scenarios

    def _admin(self) -> AdminClient:
        if self._admin_client is None:
            self._admin_client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        return self._admin_client

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic and return its name."""
        topic = NewTopic(name, partitions, 1, config=dict(config or {}))
        self._admin().create_topics([topic])[name].result(30)
        deadline = time.monotonic() + 10
        while name not in self._admin().list_topics(timeout=10).topics:
            assert time.monotonic() < deadline, f"topic {name} did not appear"
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic."""
        self._admin().delete_topics([name])[name].result(30)

    def add_partitions(self, topic: str, total: int) -> None:
        """Let a topic have `total` partitions."""
        self._admin().create_partitions([NewPartitions(topic, total)])[topic].result(30)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Let the partition begin at offset `before`."""
        futures = self._admin().delete_records([TopicPartition(topic, partition, before)])
        for future in futures.values():
            future.result(30)

    def limit_writes(self, bytes_per_s: int | None) -> None:
        """Let clients that come as `SASL_USER` write no faster than this; None: as fast as they can."""
        change = ["--delete-config", "producer_byte_rate"]
        if bytes_per_s is not None:
            change = ["--add-config", f"producer_byte_rate={bytes_per_s}"]
        command = [
            "java",
            "-Xmx128m",
            "-cp",
            f"{fetch_libraries()}/*",
            *_CONFIGURE,
            "--bootstrap-server",
            self.bootstrap,
        ]
        command += ["--alter", *change, "--entity-type", "users", "--entity-name", SASL_USER[0]]
        subprocess.run(command, check=True, capture_output=True)

    def produce(
        self,
        topic: str,
        values: Sequence[bytes | None],
        *,
        partition: int = 0,
        keys: Sequence[bytes | None] | None = None,
        headers: list[tuple[str, str | bytes | None]] | None = None,
        config: Mapping[str, str | int] | None = None,
    ) -> None:
        """Write records to one partition, in order, and wait until they are acknowledged."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5, "acks": "all", **(config or {})})
        failures: list[object] = []

        def delivered(error: object, _: Message) -> None:
            if error is not None:
                failures.append(error)

        for index, value in enumerate(values):
            key = keys[index] if keys is not None else None
            while True:
                try:
                    producer.produce(topic, value, key, partition, on_delivery=delivered, headers=headers)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(30) == 0, "records were not acknowledged within 30 s"
        assert not failures, failures

    def read(self, topic: str, isolation: str = "read_committed") -> list[Message]:
        """Every record there is now, partition by partition in order of offset."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"tests-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
            }
        )
        try:
            partitions = sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
            messages: list[Message] = []
            open_partitions = set(partitions)
            deadline = time.monotonic() + 30
            while open_partitions:
                assert time.monotonic() < deadline, f"the end of {topic} was not reached within 30 s"
                for message in consumer.consume(1000, 0.2):
                    if message.error() is not None:
                        open_partitions.discard(message.partition() or 0)
                    else:
                        messages.append(message)
            return sorted(messages, key=lambda message: (message.partition() or 0, message.offset() or 0))
        finally:
            consumer.close()

    def values(self, topic: str, isolation: str = "read_committed") -> list[bytes]:
        """Values of `read`."""
        return [message.value() or b"" for message in self.read(topic, isolation)]


def fetch_libraries() -> Path:
    """The folder of Kafka's jars, fetched by Maven on first use; `BrokerUnavailable` says what is missing."""
    for program in ("java", "keytool"):
        if shutil.which(program) is None:
            raise BrokerUnavailable(f"{program} is not on the path (a JDK 17 or later is needed)")
    if ready := os.environ.get("STREAMPROC_TEST_KAFKA_LIBS"):
        return Path(ready)
    cache = Path(os.environ.get("STREAMPROC_TEST_CACHE") or Path(__file__).parent.parent / ".cache" / "kafka")
    libraries = cache / f"libs-{KAFKA_VERSION}"
    if libraries.exists():
        return libraries
    if shutil.which("mvn") is None:
        raise BrokerUnavailable("mvn is not on the path (Maven fetches the broker's jars)")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        pom = Path(scratch) / "pom.xml"
        pom.write_text(_POM)
        fetched = Path(scratch) / "libs"
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise BrokerUnavailable(f"Maven could not fetch Kafka {KAFKA_VERSION}: {result.stdout[-2000:]}")
        with contextlib.suppress(OSError):  # another run was faster
            fetched.rename(libraries)
    return libraries


@contextlib.contextmanager
def running(port: int | None = None) -> Iterator[Broker]:
    """A started broker in a temporary folder, stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="streamproc-kafka-", ignore_cleanup_errors=True) as directory:
        broker = Broker(Path(directory), port)
        try:
            broker.start()
            yield broker
        finally:
            broker.kill()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different: each is held until all are known."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def main() -> None:
    """Run a broker until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run one Kafka broker for trying things out.")
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--topic", action="append", default=[], metavar="NAME[:PARTITIONS]")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), running(options.port) as broker:
        for topic in options.topic:
            name, _, partitions = topic.partition(":")
            broker.create_topic(name, int(partitions or 1))
        print(f"Kafka {KAFKA_VERSION} on {broker.bootstrap}; Ctrl-C stops it", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
