"""A service on Kafka whose operations are cut short by kill -9: each is done afterwards, or was never begun.

Pipelines are upgraded, renamed in, rescaled, stopped, drained, started and taken back to savepoints at random, one
or several at the same time, while the service may die at any moment. What is wanted of each is told by the service
when it is back, and must be what it was before the operation or after it. At the end every order has been copied
once and in its place, every window is right, no transaction is open, and the ledger counts what was produced.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from tests.broker import Broker
from tests.faults.kafka_orders import KafkaOrders
from tests.faults.transactions import transaction_states
from tests.serving import Service

_PARALLELISM_MAX: Final = 4
_ORDERS_MAX: Final = 200  # at a time
_ANSWER_S: Final = 130.0
_BACK_S: Final = 120.0
_OPEN: Final = {"Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a pipeline."""

    yaml: str
    wanted: str = "running"
    parallelism: int = 1


@dataclass(frozen=True, slots=True)
class Operation:
    """A request, and what is wanted once it has been done."""

    says: str
    method: str
    path: str
    body: str | dict[str, Any] | None
    after: Wish


class Hosted:
    """One pipeline, and what is known to be wanted of it."""

    def __init__(self, orders: KafkaOrders) -> None:
        self.orders = orders
        self.wish = Wish(orders.file.read_text())
        self.drains = 0  # each closes windows that go on afterwards
        self.spread = False  # rows went to a sink of another parallelism, in no order between its subtasks

    @property
    def path(self) -> str:
        return f"/v1/pipelines/{self.orders.name}"

    def changed(self, change: Callable[[dict[str, Any]], None]) -> str:
        """Its file with a change."""
        spec = yaml.safe_load(self.wish.yaml)
        change(spec)
        return yaml.safe_dump(spec, sort_keys=False)


class ServiceUnderFire:
    """One service, some pipelines on it."""

    def __init__(self, broker: Broker, directory: Path, seed: int, rate: int = 0, *, pipelines: int = 2) -> None:
        del rate  # orders come between operations
        self._random = random.Random(seed)
        self._broker = broker
        self._began_s = time.monotonic()
        self._service = Service(directory)
        self._all: list[Hosted] = []
        self.faults: Counter[str] = Counter()
        for number in range(pipelines):
            folder = directory / f"orders-{number}"
            folder.mkdir()
            self._all.append(Hosted(KafkaOrders(broker, folder, partitions=3, seed=self._random.randrange(2**32))))

    def run(self, minutes: float) -> None:
        """Operations until the time is over, then the check of everything."""
        until_s = time.monotonic() + 60 * minutes
        self.rounds(lambda: time.monotonic() < until_s)

    def rounds(self, more: Callable[[], bool]) -> None:
        """Operations as long as there are to be `more`, then the check of everything."""
        self._service.start()
        try:
            for hosted in self._all:
                self._answered(Operation("create", "PUT", hosted.path, hosted.wish.yaml, hosted.wish))
            while more():
                self._round()
            self._finish()
        finally:
            self._service.kill()

    # -- one round

    def _round(self) -> None:
        for hosted in self._all:
            hosted.orders.produce(self._random.randint(1, _ORDERS_MAX))
        if self._random.random() < 0.7:
            self._settle()
        chosen = self._random.sample(self._all, self._random.randint(1, len(self._all)))
        operations = [(hosted, self._operation(hosted)) for hosted in chosen]
        answers: dict[int, httpx.Response | None] = {}

        def ask(number: int, operation: Operation) -> None:
            answers[number] = self._answered(operation)

        asking = [threading.Thread(target=ask, args=(n, op)) for n, (_, op) in enumerate(operations)]
        for thread in asking:
            thread.start()
        killed = self._random.random() < 0.7
        if killed:
            time.sleep(self._random.choice([0.1, 0.5, 2.0]) * self._random.random())
            self._service.kill()
        for thread in asking:
            thread.join()
        says = " and ".join(f"{op.says} ({_told(answers[n])})" for n, (_, op) in enumerate(operations))
        self._say(f"{says}{', killed' if killed else ''}")
        self.faults.update(op.says.split(" ", 1)[0] for _, op in operations)
        if killed:
            self.faults["kill"] += 1
            for hosted in self._all:
                hosted.orders.produce(self._random.randint(1, 20))
            self._service.start()
        for number, (hosted, operation) in enumerate(operations):
            self._adopt(hosted, operation, answers[number])

    def _operation(self, hosted: Hosted) -> Operation:
        wish, post = hosted.wish, f"{hosted.path}/"
        if wish.wanted != "running":
            if self._random.random() < 0.2:
                return self._upgrade(hosted)
            return Operation("start", "POST", post + "start", None, replace(wish, wanted="running"))
        match self._random.choice(["upgrade", "upgrade", "rescale", "savepoint", "stop", "drain", "back"]):
            case "upgrade":
                return self._upgrade(hosted)
            case "rescale":
                to = self._random.randint(1, _PARALLELISM_MAX)
                return Operation(
                    f"rescale to {to}", "POST", post + "rescale", {"parallelism": to}, replace(wish, parallelism=to)
                )
            case "savepoint":
                return Operation("savepoint", "POST", post + "savepoints", None, wish)
            case "stop":
                return Operation("stop", "POST", post + "stop", None, replace(wish, wanted="stopped"))
            case "drain":
                hosted.drains += 1
                return Operation("drain", "POST", post + "stop", {"drain": True}, replace(wish, wanted="drained"))
            case _:
                return self._back_to_savepoint(hosted)

    def _upgrade(self, hosted: Hosted) -> Operation:
        def add(spec: dict[str, Any]) -> None:
            name = f"doubled-{len(spec['steps'])}"
            spec["steps"][name] = {"input": "valid", "select": {"id": "id * 2"}}
            spec["sinks"][f"{name}-out"] = {"type": "blackhole", "input": name}

        def rewrite(spec: dict[str, Any]) -> None:
            step = spec["steps"]["valid"]
            step["where"] = "id > -1" if step["where"] == "id >= 0" else "id >= 0"

        def rename(spec: dict[str, Any]) -> None:
            old = spec["sinks"]["totals"]["input"]
            new = "sums" if old != "sums" else "sums-of-accounts"
            spec["steps"][new] = spec["steps"].pop(old) | {"was": old}
            spec["sinks"]["totals"]["input"] = new

        def widen(spec: dict[str, Any]) -> None:
            spec["sinks"]["copies"]["parallelism"] = self._random.randint(1, _PARALLELISM_MAX)
            hosted.spread = True

        change = self._random.choice([add, rewrite, rename, widen])
        text = hosted.changed(change)
        return Operation(f"upgrade: {change.__name__}", "PUT", hosted.path, text, replace(hosted.wish, yaml=text))

    def _back_to_savepoint(self, hosted: Hosted) -> Operation:
        """To the newest savepoint, behind which nothing has been read: nothing comes twice."""
        self._settle()
        self._until_copied(hosted)
        taken = self._answered(Operation("", "POST", f"{hosted.path}/savepoints", None, hosted.wish))
        assert taken is not None
        assert taken.status_code == 201, taken.text
        stopped = self._answered(Operation("", "POST", f"{hosted.path}/stop", None, hosted.wish))
        assert stopped is not None
        assert stopped.status_code == 200, stopped.text
        hosted.wish = replace(hosted.wish, wanted="stopped")
        hosted.orders.produce(self._random.randint(1, _ORDERS_MAX))
        body = {"from": taken.json()["id"]}
        after = replace(hosted.wish, wanted="running")
        return Operation(f"start from {body['from']}", "POST", f"{hosted.path}/start", body, after)

    def _adopt(self, hosted: Hosted, operation: Operation, answer: httpx.Response | None) -> None:
        """What is wanted now must be what was, or what was to be; just this where the answer tells."""
        before, after = hosted.wish, operation.after
        allowed = [before, after]
        if answer is not None and answer.status_code < 300:
            allowed = [after]
        elif answer is not None:
            assert answer.json()["type"].endswith((":conflict", ":savepoint-failed", ":closing")), answer.text
            allowed = [before]
        self._service.until(lambda: self._wish(hosted) is not None)
        now = self._wish(hosted)
        assert now in allowed, f"{operation.says}: {now} is neither {before} nor {after}\n{self._service.log()[-4000:]}"
        assert now is not None
        hosted.wish = now

    # -- what the service says

    def _answered(self, operation: Operation) -> httpx.Response | None:
        """None where the service died before it answered."""
        body = operation.body
        content = body if isinstance(body, str) else None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/yaml" if isinstance(body, str) else "application/json"}
        try:
            return httpx.request(
                operation.method,
                self._service.url + operation.path,
                content=content,
                headers=headers,
                timeout=_ANSWER_S,
            )
        except httpx.TransportError:
            return None

    def _wish(self, hosted: Hosted) -> Wish | None:
        """None while the file has not been read yet."""
        detail = self._service.get(hosted.path)
        assert detail["state"] != "failed", f"{detail['message']}\n{self._service.log()[-8000:]}"
        graph = httpx.get(f"{self._service.url}{hosted.path}/graph", timeout=_ANSWER_S)
        if graph.status_code != 200:
            return None
        return Wish(detail["yaml"], detail["wanted"], detail["parallelism"])

    def _settle(self) -> None:
        """Until everything is as wanted."""
        for hosted in self._all:
            self._service.until(lambda hosted=hosted: self._ready(hosted), _BACK_S)  # type: ignore[misc]

    def _ready(self, hosted: Hosted) -> bool:
        detail = self._service.get(hosted.path)
        assert detail["state"] != "failed", f"{detail['message']}\n{self._service.log()[-8000:]}"
        return bool(detail["ready"])

    def _until_copied(self, hosted: Hosted) -> None:
        orders = hosted.orders
        self._service.until(lambda: len(orders.copied()) >= len(orders.made), _BACK_S)

    # -- the end

    def _finish(self) -> None:
        for hosted in self._all:
            if hosted.wish.wanted != "running":
                self._settle()
                started = self._answered(Operation("", "POST", f"{hosted.path}/start", None, hosted.wish))
                assert started is not None
                assert started.status_code == 200, started.text
        self._settle()
        for hosted in self._all:
            self._until_copied(hosted)
            hosted.orders.close_windows()
        for hosted in self._all:
            self._service.until(lambda hosted=hosted: self._all_closed(hosted), _BACK_S)  # type: ignore[misc]
            self._service.until(lambda hosted=hosted: self._balanced(hosted), _BACK_S)  # type: ignore[misc]
        assert self._service.stop() == 0, self._service.log()
        for hosted in self._all:
            self._check(hosted)

    def _all_closed(self, hosted: Hosted) -> bool:
        return _merged(hosted.orders.sums()) == _merged(hosted.orders.expected_sums())

    def _balanced(self, hosted: Hosted) -> bool:
        """The ledger of the newest checkpoint has counted everything."""
        ledger = {line["node"]: line for line in self._service.get(hosted.path)["ledger"]}
        assert not any(line["unaccounted"] for line in ledger.values()), ledger
        produced = len(hosted.orders.made) + hosted.orders.partitions
        return "orders" in ledger and int(ledger["orders"]["in"]) == produced

    def _check(self, hosted: Hosted) -> None:
        orders = hosted.orders
        if not hosted.drains and not hosted.spread:
            orders.check()
        copied = orders.copied()
        assert sorted(copied) == list(range(len(orders.made))), "lost or duplicated"
        by_account: dict[str, list[int]] = defaultdict(list)
        for number in copied:
            by_account[orders.made[number]["account"]].append(number)
        in_order = all(numbers == sorted(numbers) for numbers in by_account.values())
        assert in_order or hosted.spread, "order of an account"
        assert self._all_closed(hosted)
        states = asyncio.run(transaction_states(self._broker, orders.name))
        assert not _OPEN & set(states.values()), states
        left = list(self._service.folder.glob(".streamproc/service/state/*/*"))
        assert not left, f"local state was left behind: {left}"

    def _say(self, text: str) -> None:
        wishes = ", ".join(f"{hosted.wish.wanted} × {hosted.wish.parallelism}" for hosted in self._all)
        made = sum(len(hosted.orders.made) for hosted in self._all)
        print(f"{time.monotonic() - self._began_s:7.1f} s  {made:,} orders  [{wishes}]  {text}", flush=True)


def _told(answer: httpx.Response | None) -> str:
    if answer is None:
        return "no answer"
    return str(answer.status_code) if answer.status_code < 300 else f"{answer.status_code}: {answer.json()['detail']}"


def _merged(rows: Counter[tuple[str, str, int, int]]) -> dict[tuple[str, str], tuple[int, int]]:
    """Orders and amount by account and window. A window that a drain has closed comes again with what came later."""
    merged: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for (account, start, orders, amount), times in rows.items():
        known = merged[account, start]
        merged[account, start] = (known[0] + times * orders, known[1] + times * amount)
    return dict(merged)
