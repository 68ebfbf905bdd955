"""`streamproc serve` as a process: it comes back after kill -9, ends with its checkpoints, and knows its callers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from state.failure import Failure
from streamproc.service.client import Access, ServiceClient
from streamproc.service.views import PipelineList

ADMIN = "admin-token-0123456789"
NUMBERS = """
version: 1
pipeline: numbers
job: {checkpoint: {every: 100ms}}
sources:
  rows: {type: datagen, rate: 200, columns: {id: {sequence: {start: 0}}}}
sinks:
  out: {type: blackhole, input: rows}
"""
PATIENCE_S = 60.0


class Service:
    """A running `streamproc serve`, on ports it picked itself."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self._said = (folder / "said.txt").open("a+")
        self._said.seek(0, os.SEEK_END)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamproc", "serve", "--port", "0", "--metrics-port", "0", *options],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
        )
        self._begins = self._said.tell()
        serving = self._wait_for("streamproc: serving ")
        self.url = serving.split(" on ")[1].split(" ")[0]
        self.metrics = self._wait_for("streamproc: metrics and health on ").split(" on ")[1].removesuffix("/metrics")

    def said(self) -> str:
        self._said.seek(self._begins)
        return self._said.read()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._said.close()

    def _wait_for(self, beginning: str) -> str:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            for line in self.said().splitlines(keepends=True):
                if line.startswith(beginning) and line.endswith("\n"):
                    return line.strip()
            assert self.process.poll() is None, self.said()
            time.sleep(0.02)
        raise AssertionError(self.said())


@contextmanager
def serving(folder: Path, *options: str, **environment: str) -> Iterator[Service]:
    service = Service(folder, *options, **environment)
    try:
        yield service
    finally:
        service.close()


def refused(folder: Path, *options: str) -> str:
    """What it says when it ends with 2."""
    done = subprocess.run(
        [sys.executable, "-m", "streamproc", "serve", *options], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def eventually(get: Any, holds: Any) -> Any:
    """What `get` gives, once it holds."""
    until = time.monotonic() + PATIENCE_S
    while not holds(found := get()):
        assert time.monotonic() < until, found
        time.sleep(0.02)
    return found


def test_a_killed_service_brings_everything_back(tmp_path: Path) -> None:
    one = "/v1/pipelines/numbers"
    with serving(tmp_path) as service, httpx.Client(base_url=service.url) as client:
        assert client.get("/v1/pipelines").json() == {"pipelines": []}
        assert httpx.get(f"{service.metrics}/readyz").status_code == 200
        assert client.put(one, content=NUMBERS).status_code == 201
        assert client.put(one, content=NUMBERS).status_code == 200
        assert client.get(one).json()["revision"] == 1
        before = eventually(lambda: client.get(one).json()["checkpoint"] or 0, lambda number: number >= 2)
        service.end(signal.SIGKILL)

    with serving(tmp_path) as service, httpx.Client(base_url=service.url) as client:
        detail = client.get(one).json()
        assert detail["yaml"] == NUMBERS
        later = eventually(lambda: client.get(one).json(), lambda d: (d["checkpoint"] or 0) > before)
        assert later["state"] == "running"
        ready = eventually(lambda: httpx.get(f"{service.metrics}/readyz"), lambda r: r.status_code == 200)
        assert ready.json()["pipelines"]["numbers"]["state"] == "running"
        assert 'streamproc_up{pipeline="numbers"} 1.0' in httpx.get(f"{service.metrics}/metrics").text
        assert service.end(signal.SIGTERM) == 0
        assert "last checkpoints" in service.said()
    last = max((tmp_path / ".streamproc/checkpoints/numbers").glob("chk-*/manifest.json"))
    assert re.search(r'"kind": ?"stop"', last.read_text())

    with serving(tmp_path) as service, httpx.Client(base_url=service.url) as client:
        assert client.post("/v1/pipelines/numbers/stop").json()["state"] == "stopped"
        assert client.delete(one).status_code == 204
        assert service.end(signal.SIGINT) == 0


def test_threads_that_user_code_has_begun_do_not_keep_it_from_ending(tmp_path: Path) -> None:
    (tmp_path / "leaks.py").write_text(
        """
import threading


def leak(frame):
    threading.Thread(target=threading.Event().wait, daemon=False).start()
    return frame
"""
    )
    step = "steps: {leaks: {input: rows, python: {call: 'leaks.py:leak', columns: {id: int64}}}}\nsinks:"
    leaking = NUMBERS.replace("sinks:", step).replace("input: rows}\n", "input: leaks}\n")
    (tmp_path / "service.yaml").write_text("functions: .\n")
    with serving(tmp_path, "--config", "service.yaml") as service, httpx.Client(base_url=service.url) as client:
        assert client.put("/v1/pipelines/numbers", content=leaking).status_code == 201
        eventually(lambda: client.get("/v1/pipelines/numbers").json()["records_out"], lambda rows: rows > 0)
        assert service.end(signal.SIGTERM) == 0
        assert "was left behind" in service.said()


def test_what_keeps_it_from_starting_is_said_and_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("listen: {prot: 80}\n")
    assert "wrong.yaml:1:" in refused(tmp_path, "--config", "wrong.yaml")
    assert "needs tokens" in refused(tmp_path, "--host", "0.0.0.0")
    with serving(tmp_path) as service:
        assert ".streamproc/service" in refused(tmp_path, "--port", "0", "--metrics-port", "0")
        assert httpx.get(f"{service.url}/v1/pipelines").status_code == 200


# -- TLS and client certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA; certificates of it for the server, for `ada` and `rita`; and `eve`'s, of a CA nobody knows."""
    openssl = shutil.which("openssl")
    if openssl is None:
        assert os.environ.get("CI") != "true", "openssl is not installed"
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    for authority in ("ca", "other"):
        run("req", "-x509", *ec, "-keyout", f"{authority}.key", "-out", f"{authority}.crt", "-subj", f"/CN={authority}")
    for name, authority in (("server", "ca"), ("ada", "ca"), ("rita", "ca"), ("eve", "other")):
        run("req", *ec[:-2], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/O=streams/CN={name}")
        (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        signing = ["-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2"]
        run("x509", "-req", "-in", f"{name}.csr", *signing, "-extfile", f"{name}.ext", "-out", f"{name}.crt")
    return folder


def trusting(certificates: Path, name: str | None) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    if name is not None:
        context.load_cert_chain(certificates / f"{name}.crt", certificates / f"{name}.key")
    return httpx.Client(verify=context)


def ask(url: str, ca: Path, certificate: Path | None = None, key: Path | None = None) -> PipelineList:
    """What the command line would have to tell."""
    with ServiceClient(Access(url, ca=ca, certificate=certificate, key=key)) as client:
        return client.list()


def test_client_certificates_tokens_and_the_audit_log(certificates: Path, tmp_path: Path) -> None:
    at = certificates
    (tmp_path / "service.yaml").write_text(
        f"""
tls: {{certificate: {at}/server.crt, key: {at}/server.key, clients: {{ca: {at}/ca.crt, admins: [ada]}}}}
tokens: [{{name: ci, role: admin, token: "${{env:CI_TOKEN}}"}}]
audit_log: audit.jsonl
"""
    )
    with serving(tmp_path, "--config", "service.yaml", CI_TOKEN=ADMIN) as service:
        url = f"{service.url}/v1/pipelines"
        assert url.startswith("https://")
        for stranger in (None, "eve"):
            with trusting(at, stranger) as client, pytest.raises(httpx.TransportError):
                client.get(url)
        for certificate, says in {
            (None, None): "has closed the connection",
            (at / "eve.crt", at / "eve.key"): "has closed the connection",
            (at / "rita.crt", None): "holds no key; --key names it",
        }.items():
            with pytest.raises(Failure, match=says):
                ask(service.url, at / "ca.crt", *certificate)
        with pytest.raises(Failure, match="does not speak TLS"):
            ask(service.metrics.replace("http:", "https:"), at / "ca.crt")
        with pytest.raises(Failure, match="--ca names its CA"):
            ask(service.url, at / "other.crt", at / "rita.crt", at / "rita.key")
        assert ask(service.url, at / "ca.crt", at / "rita.crt", at / "rita.key").pipelines == ()
        with trusting(at, "rita") as rita:
            assert rita.get(url).status_code == 200
            denied = rita.put(f"{url}/numbers", content=NUMBERS)
            assert denied.status_code == 403
            assert "rita" in denied.json()["detail"]
            assert rita.get(url, headers={"Authorization": "Bearer no-such-token"}).status_code == 401
            with_token = rita.put(f"{url}/numbers", content=NUMBERS, headers={"Authorization": f"Bearer {ADMIN}"})
            assert with_token.status_code == 201
        with trusting(at, "ada") as ada:
            assert ada.delete(f"{url}/numbers").status_code == 204
            assert ada.get(url, headers={"Host": "evil.example"}).status_code == 400
        assert service.end(signal.SIGTERM) == 0
        assert ADMIN not in service.said()
    entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(e["who"], e["via"], e["method"], e["status"]) for e in entries if e["event"] == "end"] == [
        ("rita", "certificate", "PUT", 403),
        ("ci", "token", "PUT", 201),
        ("ada", "certificate", "DELETE", 204),
    ]
