"""A pipeline over files, so that a scenario needs no broker: orders copied, and counted in one long window."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from state.store import CheckpointStore
from tests.faults.running import Run

PIPELINE = """
version: 1
pipeline: orders
job:
  checkpoint: {{every: 50ms, timeout: {timeout}, keep: {keep}, tolerate_failures: 3, storage: "file:{store}"}}
  restart: {restart}
  parallelism: {parallelism}
sources:
  orders:
    type: file
    path: {folder}/in/*.jsonl
    follow: true
    schema: {{id: int64, account: string, at: timestamp_ms}}
    event_time: {{column: at}}
steps:
  counts:
    input: orders
    key: [account]
    window: {{tumble: 1h}}
    aggregate: {{orders: count(*)}}
sinks:
  copies: {{type: file, input: orders, path: {folder}/copies}}
  totals: {{type: file, input: counts, path: {folder}/totals}}
"""


ACCOUNTS = 20


class FileOrders:
    """A folder with an input file that grows, and what came out of it. A later object goes on with the folder."""

    def __init__(
        self,
        folder: Path,
        *,
        parallelism: int = 1,
        keep: int = 1000,
        restart: str = "{strategy: none}",
        store: Path | None = None,
        timeout: str = "10m",
    ) -> None:
        self.folder = folder
        self.file = folder / "pipeline.yaml"
        self._store = store or folder / "checkpoints"
        settings = {"folder": folder, "parallelism": parallelism, "keep": keep, "restart": restart, "timeout": timeout}
        self.file.write_text(PIPELINE.format(**settings, store=self._store))
        self.count = 0
        (folder / "in").mkdir(exist_ok=True)

    @property
    def store(self) -> CheckpointStore:
        """Opened anew."""
        return CheckpointStore.open(str(self._store), "orders")

    def stored(self, name: str) -> Path:
        """A file of the store."""
        return self._store / "orders" / name

    def append(self, count: int, at: int = 0) -> None:
        """More orders; the accounts take turns."""
        numbers = range(self.count, self.count + count)
        self.count += count
        rows = [{"id": number, "account": f"a{number % ACCOUNTS}", "at": at} for number in numbers]
        with (self.folder / "in" / "a.jsonl").open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))

    def rows(self, sink: str) -> list[dict[str, object]]:
        """What is visible of a sink."""
        files = sorted((self.folder / sink).glob("part-*"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def copies(self) -> Counter[object]:
        """Order id → how often it was copied."""
        return Counter(row["id"] for row in self.rows("copies"))

    async def finish(self, run: Run) -> None:
        """Close the window; its counts must be as if nothing had happened."""
        counts = Counter(f"a{number % ACCOUNTS}" for number in range(self.count))
        self.append(1, at=7_200_000)
        await run.until(lambda: self.rows("totals"))
        assert {row["account"]: row["orders"] for row in self.rows("totals")} == counts
        assert len(self.rows("totals")) == len(counts)
