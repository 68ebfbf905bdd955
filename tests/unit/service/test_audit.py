"""The audit log: a line before each change and one after, and no change without the first."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from streamproc.service.app import create_app
from streamproc.service.audit import AuditFile, AuditUnavailable
from tests.unit.service.asking import ADMIN, READ, TOKENS, Remembering, asking, bearer, problem

ONE = "/v1/pipelines/p"
FULL = Path("/dev/full")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_who_changed_what_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    app = create_app(Remembering(), TOKENS, audit=AuditFile(path))
    async with asking(app) as client:
        await client.put(f"{ONE}?plan=p1", content=b"password: hidden", headers=bearer(ADMIN))
        await client.delete("/v1/pipelines/absent", headers=bearer(ADMIN))
    begin, end, *absent = lines(path)
    assert begin["event"] == "begin"
    assert end.items() >= {k: v for k, v in begin.items() if k not in ("at", "event")}.items()
    assert (
        end.items()
        >= {
            "event": "end",
            "who": "ada",
            "role": "admin",
            "via": "token",
            "address": "127.0.0.1",
            "method": "PUT",
            "path": ONE,
            "plan": "p1",
            "status": 201,
            "body_bytes": 16,
            "body_sha256": hashlib.sha256(b"password: hidden").hexdigest(),
        }.items()
    )
    assert end["seconds"] >= 0
    assert [one.get("status") for one in absent] == [None, 404]
    assert begin["id"] != absent[0]["id"]
    text = path.read_text()
    assert "hidden" not in text
    assert ADMIN not in text
    assert path.stat().st_mode & 0o777 == 0o600


async def test_what_was_refused_is_there_too_and_looking_is_not(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with asking(create_app(Remembering({"p": "x"}), TOKENS, audit=AuditFile(path))) as client:
        await client.get(ONE, headers=bearer(READ))
        await client.post(f"{ONE}/plan", headers=bearer(READ), content=b"a: 1")
        await client.post(f"{ONE}/stop", headers=bearer(READ))
        await client.post("/login", data={"token": ADMIN})
    assert [(one["event"], one.get("who"), one["path"], one.get("status")) for one in lines(path)] == [
        ("end", "rita", f"{ONE}/stop", 403),
        ("begin", None, "/login", None),
        ("end", None, "/login", 303),
    ]
    assert hashlib.sha256(f"token={ADMIN}".encode()).hexdigest() not in path.read_text()


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
async def test_what_cannot_be_logged_is_not_done(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = AuditFile(path)
    service = Remembering({"p": "x"})
    async with asking(create_app(service, TOKENS, audit=audit), headers=bearer(ADMIN)) as client:
        path.unlink()
        path.symlink_to(FULL)
        problem(await client.post(f"{ONE}/stop"), 503, "audit-unavailable")
        assert service.asked == []
        assert (await client.get(ONE)).status_code == 200
        path.unlink()
        assert (await client.post(f"{ONE}/stop")).status_code == 200
    assert [one["event"] for one in lines(path)] == ["begin", "end"]


async def test_a_torn_line_is_ended_and_a_moved_file_replaced(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"event": "be')
    async with asking(create_app(Remembering({"p": "x"}), TOKENS, audit=AuditFile(path))) as client:
        await client.post(f"{ONE}/stop", headers=bearer(ADMIN))
        torn, *whole = path.read_text().splitlines()
        assert torn == '{"event": "be'
        assert [json.loads(line)["event"] for line in whole] == ["begin", "end"]
        path.rename(tmp_path / "audit.jsonl.1")
        await client.post(f"{ONE}/stop", headers=bearer(ADMIN))
    assert len(lines(path)) == 2


def test_a_file_that_cannot_be_written_keeps_the_service_from_starting(tmp_path: Path) -> None:
    with pytest.raises(AuditUnavailable, match="absent") as raised:
        AuditFile(tmp_path / "absent" / "audit.jsonl")
    assert raised.value.acts == "user"
