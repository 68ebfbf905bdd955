"""The page on upgrading is true: its commands run in order against a service, and print what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_docs import DOCS, blocks, free_port, shell


@pytest.mark.slow
def test_the_page_on_upgrading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("STREAMPROC_URL", f"http://127.0.0.1:{port}")
    serve = "streamproc serve > service.log 2>&1 &"
    ready = "until streamproc list > list.log 2>&1; do sleep 0.2; done"
    here = f"streamproc serve --port {port} --metrics-port 0 > service.log 2>&1 &\n{ready}"
    with shell(tmp_path, {serve: here}) as running:
        for block in blocks(DOCS / "upgrading.md"):
            running.do(block)
