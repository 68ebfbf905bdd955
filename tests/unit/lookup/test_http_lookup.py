from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from operators.connector import ErrorPolicy
from operators.operator import OperatorContext
from operators.row_errors import RecordFailed
from streamproc.lookup.http_client import is_refused
from streamproc.lookup.join import LookupJoin
from tests.unit.lookup.planning import left, operator, run
from tests.unit.lookup.server import serving

Answer = Callable[[str, int], Any]  # path, how often it was asked for → what is answered


class Users:
    """Looks up users by country at a server that answers as the test says."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self.asked: Counter[str] = Counter()
        self.at_once = self.at_once_most = 0

    def join(
        self, answer: Answer, *, kind: str = "left", errors: ErrorPolicy = "fail", more: str = ""
    ) -> tuple[LookupJoin, OperatorContext]:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.asked[request.raw_path] += 1
            self.at_once += 1
            self.at_once_most = max(self.at_once_most, self.at_once)
            try:
                found = answer(request.raw_path, self.asked[request.raw_path])
                if asyncio.iscoroutine(found):
                    found = await found
            finally:
                self.at_once -= 1
            return found if isinstance(found, web.StreamResponse) else web.Response(text=json.dumps(found))

        url = self._stack.enter_context(serving(handle))
        join, context = operator(
            f"{{left: orders, kind: {kind}, match: left.country = right.code, lookup: "
            f"{{http: '{url}/c/{{country}}', schema: {{code: string, vat: int64}}, timeout: 500ms{more}}}}}",
            self._folder,
            errors=errors,
        )
        self._stack.callback(join.close)
        return join, context


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Users]:
    with ExitStack() as stack:
        yield Users(stack, tmp_path)


def vats(found: dict[str, list[dict[str, Any]]]) -> list[tuple[int, int | None]]:
    return [(row["left.id"], row["right.vat"]) for row in found.get("main", [])]


def test_each_key_is_asked_once_and_404_is_no_match(users: Users) -> None:
    def answer(path: str, times: int) -> Any:
        code = path.removeprefix("/c/")
        return web.Response(status=404) if code == "XX" else [{"code": code, "vat": 1}, {"code": code, "vat": 2}]

    join, _ = users.join(answer)
    rows = left((1, "FR", 0), (2, "XX", 0), (3, "FR", 0), (4, None, 0))
    wanted = [(1, 1), (1, 2), (2, None), (3, 1), (3, 2), (4, None)]
    assert vats(run(join, rows)) == wanted
    assert vats(run(join, rows)) == wanted
    assert users.asked == {"/c/FR": 1, "/c/XX": 1}


def test_an_answer_is_asked_for_again_when_it_is_old_or_crowded_out(users: Users) -> None:
    join, _ = users.join(lambda path, times: {"code": path[3:], "vat": times}, more=", cache: {rows: 2, ttl: 10s}")

    def ask(*codes: str) -> list[int | None]:
        return [vat for _, vat in vats(run(join, left(*((1, code, 0) for code in codes))))]

    list(join.on_processing_time(0))
    assert ask("a", "b", "c") == [1, 1, 1]
    assert ask("c", "b") == [1, 1]
    assert ask("a") == [2]
    list(join.on_processing_time(10_000))
    assert ask("a") == [3]


def test_what_does_not_meet_match_is_no_match(users: Users) -> None:
    join, _ = users.join(lambda path, times: {"code": "other", "vat": 1}, kind="inner")
    assert vats(run(join, left((1, "FR", 0)))) == []


def test_500_and_429_are_tried_again(users: Users) -> None:
    statuses = {1: 500, 2: 429}

    def answer(path: str, times: int) -> Any:
        return web.Response(status=statuses[times]) if times in statuses else {"code": "FR", "vat": 20}

    join, _ = users.join(answer)
    assert vats(run(join, left((1, "FR", 0)))) == [(1, 20)]
    assert users.asked == {"/c/FR": 3}


def test_values_are_encoded_and_cannot_climb(users: Users) -> None:
    join, context = users.join(lambda path, times: {"code": "a/../b?c=ü", "vat": 1}, errors="skip")
    assert vats(run(join, left((1, "a/../b?c=ü", 0), (2, "..", 0), (3, "", 0)))) == [(1, 1)]
    assert users.asked == {"/c/a%2F..%2Fb%3Fc%3D%C3%BC": 1}
    assert context.counters.errors == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda: web.Response(status=403), "the server answers 403"),
        (lambda: web.Response(status=302, headers={"Location": "/elsewhere"}), "redirects are not followed"),
        (lambda: web.Response(text="x" * (1 << 21)), "larger than 1 MiB"),
        (lambda: web.Response(text="<html>"), "not JSON"),
        (lambda: [1], "neither a JSON object"),
        (lambda: {"code": "BAD", "vat": "much"}, "does not fit its schema"),
        (lambda: asyncio.sleep(2), "no answer within 500 ms"),
    ],
)
def test_what_is_no_answer_follows_the_error_policy(users: Users, answer: Callable[[], Any], reason: str) -> None:
    def answers(path: str, times: int) -> Any:
        return answer() if path == "/c/BAD" else {"code": "FR", "vat": 20}

    join, context = users.join(answers, errors="dlq", more=", retries: 0")
    found = run(join, left((1, "FR", 0), (2, "BAD", 0), (3, "FR", 0)))
    assert vats(found) == [(1, 20), (3, 20)]
    [error] = found["errors"]
    assert reason in error["error"]
    assert json.loads(error["value"]) == {"id": 2, "country": "BAD", "n": 0}
    assert context.counters.errors == 1
    assert "/elsewhere" not in users.asked


def test_an_error_fails_the_step_that_says_so(users: Users) -> None:
    join, _ = users.join(lambda path, times: web.Response(status=400))
    with pytest.raises(RecordFailed, match="the server answers 400"):
        run(join, left((1, "FR", 0)))


def test_no_more_at_once_than_allowed(users: Users) -> None:
    async def slow(path: str) -> Any:
        await asyncio.sleep(0.02)
        return {"code": path[3:], "vat": 1}

    join, _ = users.join(lambda path, times: slow(path), more=", in_flight: 3")
    codes = [f"c{n}" for n in range(20)]
    assert len(vats(run(join, left(*((n, code, 0) for n, code in enumerate(codes)))))) == 20
    assert users.at_once_most == 3


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    join, context = operator(
        "{left: orders, kind: inner, match: left.country = right.code, lookup: "
        "{http: 'http://127.0.0.1:1/{country}', schema: {code: string}, retries: 0}}",
        tmp_path,
        errors="skip",
    )
    assert run(join, left((1, "FR", 0))) == {}
    assert context.counters.errors == 1
    join.close()


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "::ffff:169.254.169.254"]
)
def test_addresses_that_are_never_asked(address: str) -> None:
    assert is_refused(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "93.184.216.34", "example.com"])
def test_addresses_that_may_be_asked(address: str) -> None:
    assert not is_refused(address)
