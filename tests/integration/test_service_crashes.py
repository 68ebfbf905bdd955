"""A service that is killed in the midst of an operation: it was not begun, or it is done when the service is back.

The periodic checkpoints are an hour apart: results stand only on those that the operations themselves take.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.test_service import Shop
from tests.serving import Service

_ROWS = 20
_PATH = "/v1/pipelines/shop"
_TYPE = ({"Content-Type": "application/yaml"}, {"Content-Type": "application/json"})  # of files, of all else


class Killed:
    """A pipeline on a service that dies, again and again, while it is told something."""

    def __init__(self, folder: Path) -> None:
        self.shop = Shop(folder)
        self.service = Service(folder)
        self.taken: set[int] = set()  # savepoints a user asked for

    def file(self, revision: int = 1) -> str:
        """Its YAML; each revision has a sink more."""
        sinks = "".join(f"  more_{n}: {{type: blackhole, input: orders}}\n" for n in range(1, revision))
        return self.shop.yaml(more=sinks).decode().replace("every: 200ms", "every: 1h")

    def ask(self, method: str, path: str = "", body: str | None = None) -> Any:
        answer = httpx.request(
            method,
            f"{self.service.url}{_PATH}{path}",
            content=body,
            headers=_TYPE[body is not None and body[0] == "{"],
            timeout=60,
        )
        assert answer.status_code < 300, answer.text
        return answer.json()

    def dies(self, method: str, path: str = "", body: str | None = None) -> None:
        """The service dies of this."""
        with contextlib.suppress(httpx.TransportError):
            self.ask(method, path, body)
        self.service.died()

    def back(self, crash: str | None, state: str, revision: int) -> Any:
        """The service is back, and the pipeline in this state; more rows have come where it runs. It dies again at
        `crash`."""
        self.service.start(crash=crash)
        self.service.until(lambda: (self.detail()["state"], self.detail()["ready"]) == (state, True))
        detail = self.detail()
        assert (detail["wanted"], detail["revision"]) == (state, revision)
        assert detail["yaml"] == self.file(revision)
        self.service.until(lambda: self.detail()["savepoints"] == self.kept())
        if state == "running":
            self.more_rows()

    def kept(self) -> list[int]:
        """The savepoint of the last upgrade that was done, and a user's."""
        of_upgrade = self.record()["upgrade_savepoint"]
        return sorted(self.taken | ({of_upgrade} - {None}), reverse=True)

    def record(self) -> Any:
        return json.loads((self.service.folder / ".streamproc/service/pipelines/shop/record.json").read_text())

    def more_rows(self) -> None:
        self.shop.write(_ROWS)
        self.service.until(lambda: self.detail()["records_in"] >= _ROWS)

    def detail(self) -> Any:
        return self.service.get(_PATH)


@pytest.mark.slow
def test_every_operation_is_done_or_was_never_begun(tmp_path: Path) -> None:
    it = Killed(tmp_path)
    with contextlib.closing(it.service):
        it.service.start(crash="after-savepoint")
        it.ask("PUT", body=it.file())
        it.more_rows()
        it.dies("PUT", body=it.file(2))

        it.back("mid-record", "running", 1)
        it.dies("PUT", body=it.file(2))

        it.back("after-record", "running", 1)
        it.dies("PUT", body=it.file(2))

        it.back("after-end", "running", 2)
        it.dies("PUT", body=it.file(3))

        it.back("before-last-manifest", "running", 3)
        it.dies("POST", "/stop")

        it.back("after-record", "stopped", 3)
        it.dies("POST", "/start")

        it.back("after-last-manifest", "running", 3)
        it.dies("POST", "/stop")

        it.back("before-restored", "stopped", 3)
        it.service.until(it.shop.everything_once)  # what the last checkpoint holds is committed after all
        it.ask("POST", "/start")
        savepoint = it.ask("POST", "/savepoints")["id"]
        it.taken.add(savepoint)
        it.ask("POST", "/stop")
        it.dies("POST", "/start", json.dumps({"from": savepoint}))

        it.back("after-last-manifest", "running", 3)
        assert it.record()["restore_from"] is None
        it.dies("POST", "/stop", '{"drain": true}')

        it.back(None, "drained", 3)
        assert it.shop.everything_once()
        it.shop.check_counts()
