"""Many pipelines in one service, in this process, on real files: what is wanted comes true, and results are exact."""

from __future__ import annotations

import asyncio
import errno
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from polars.exceptions import PanicException

from streamproc.dataflow.deployment import Deployment
from streamproc.observability.metrics import MetricRegistry
from streamproc.observability.redaction import Redaction
from streamproc.service import hosted, supervisor
from streamproc.service.api import Conflict, DropsState, FaultyPipeline, PlanOutdated, ServiceFault, UnknownPipeline
from streamproc.service.config import ServiceConfig
from streamproc.service.plan import StorageMoved
from streamproc.service.registry import DirectoryInUse, Registry
from streamproc.service.service import PipelineService
from streamproc.service.surroundings import RegistryUnwritable
from tests.eventually import eventually

COUNTRIES = ("de", "fr", "it")
WINDOW_MS = 10_000


class Shop:
    """A pipeline that follows files: every order goes through, and is counted by country and window."""

    def __init__(self, folder: Path, name: str = "shop") -> None:
        self.name = name
        self._folder = folder / name
        (self._folder / "in").mkdir(parents=True)
        self._written = 0

    def yaml(self, *, counts: str = "n: count(*)", job: str = "", more: str = "", source: str = "") -> bytes:
        return f"""\
version: 1
pipeline: {self.name}
job: {{checkpoint: {{every: 200ms}}{job}}}
sources:
  orders:
    type: file
    path: {self._folder}/in/*.json
    follow: true
    schema: {{id: int64, country: string, at: timestamp_ms}}
    event_time: {{column: at, out_of_order: 1h}}{source}
steps:
  counts: {{input: orders, key: [country], window: {{tumble: 10s}}, aggregate: {{{counts}}}}}
sinks:
  orders_out: {{type: file, path: {self._folder}/orders, input: orders}}
  counts_out: {{type: file, path: {self._folder}/counts, input: counts}}
{more}""".encode()

    def write(self, rows: int = 50) -> None:
        """A new file of orders, which appears whole."""
        ids = range(self._written, self._written + rows)
        self._written += rows
        lines = [json.dumps({"id": i, "country": COUNTRIES[i % 3], "at": i * 1000}) for i in ids]
        path = self._folder / "in" / f"{ids.start:06d}.json"
        path.with_suffix(".tmp").write_text("\n".join(lines) + "\n")
        path.with_suffix(".tmp").rename(path)

    def rows(self, sink: str) -> list[dict[str, Any]]:
        """What has been committed."""
        files = sorted((self._folder / sink).glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def ids(self) -> list[int]:
        return sorted(row["id"] for row in self.rows("orders"))

    def everything_once(self) -> bool:
        """Every order so far has been committed; fails when one has been so twice."""
        ids = self.ids()
        assert len(ids) == len(set(ids))
        return ids == list(range(self._written))

    def check_counts(self) -> None:
        """After draining."""
        expected = Counter((COUNTRIES[i % 3], i * 1000 // WINDOW_MS) for i in range(self._written))
        counted: Counter[tuple[str, int]] = Counter()
        for row in self.rows("counts"):
            minute, second = row["window_start"][14:19].split(":")
            counted[row["country"], (int(minute) * 60 + int(second)) * 1000 // WINDOW_MS] += row["n"]
        assert counted == expected
        assert len(self.rows("counts")) == len(expected), "a window came twice"


@asynccontextmanager
async def serving(folder: Path, **said: Any) -> AsyncIterator[PipelineService]:
    said.setdefault("checkpoints", f"file:{folder}/checkpoints")
    config = ServiceConfig(directory=folder / "service", **said)
    service = PipelineService(config, MetricRegistry(), Redaction())
    await service.open()
    try:
        yield service
    finally:
        await service.close()


def is_in(service: PipelineService, name: str, state: str) -> Callable[[], bool]:
    return lambda: service.get(name).state == state


async def drained_exactly(service: PipelineService, shop: Shop) -> None:
    detail = await service.stop(shop.name, drain=True)
    assert (detail.state, detail.wanted, detail.ready) == ("drained", "drained", True)
    assert shop.everything_once()
    shop.check_counts()


async def test_an_operators_day_on_one_pipeline(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with serving(tmp_path) as service:
        shop.write()
        detail, created = await service.put("shop", shop.yaml())
        assert created
        assert (detail.revision, detail.wanted, detail.yaml) == (1, "running", shop.yaml().decode())
        await eventually(shop.everything_once)
        assert service.ready

        # The same again is nothing; the attempt goes on.
        attempts = (await service.checkpoints("shop"))[0].attempt
        again, created = await service.put("shop", shop.yaml())
        assert (created, again.revision, again.updated_at) == (False, 1, detail.updated_at)

        taken = await service.savepoint("shop")
        assert (taken.kind, taken.attempt) == ("savepoint", attempts)
        assert service.get("shop").savepoints == (taken.id,)

        shop.write()
        for parallelism in (3, 2):
            detail = await service.rescale("shop", parallelism)
            assert (detail.parallelism, detail.revision) == (parallelism, 1)
            shop.write()
            await eventually(shop.everything_once)
        with pytest.raises(ServiceFault, match="max_parallelism"):
            await service.rescale("shop", 1000)
        assert service.get("shop").state == "running"

        stopped = await service.stop("shop")
        assert (stopped.state, stopped.wanted, stopped.ready) == ("stopped", "stopped", True)
        assert service.facts("shop") is None
        assert (await service.checkpoints("shop"))[0].kind == "stop"
        shop.write()
        assert (await service.start("shop")).wanted == "running"
        await eventually(shop.everything_once)

        # An added step, from a savepoint: of those taken for an upgrade only the newest is kept.
        wider = shop.yaml(more=f"  fr: {{type: file, path: {tmp_path}/fr, input: french}}\n").replace(
            b"sinks:", b"  french: {input: orders, where: country = 'fr'}\nsinks:"
        )
        plan = await service.plan("shop", wider)
        assert (plan.action, plan.drops_state) == ("upgrade", False)
        detail, created = await service.put("shop", wider, plan=plan.id)
        assert (created, detail.revision, detail.parallelism) == (False, 2, 2)
        assert len(detail.savepoints) == 2
        assert taken.id in detail.savepoints
        await service.release_savepoint("shop", taken.id)
        await eventually(lambda: taken.id not in service.get("shop").savepoints)
        with pytest.raises(ServiceFault, match="no savepoint"):
            await service.release_savepoint("shop", taken.id)
        with pytest.raises(PlanOutdated):
            await service.put("shop", shop.yaml(counts="n: count(*), m: max(id)"), plan=plan.id)
        shop.write()
        await eventually(shop.everything_once)
        await drained_exactly(service, shop)


async def test_state_is_dropped_only_where_that_is_said_and_the_file_wins_over_an_older_rescale(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with serving(tmp_path) as service:
        shop.write()
        await service.put("shop", shop.yaml())
        await eventually(shop.everything_once)
        await service.rescale("shop", 2)
        changed = shop.yaml(counts="n: count(*), last: max(id)", job=", parallelism: 3")
        with pytest.raises(DropsState) as refused:
            await service.put("shop", changed)
        assert refused.value.plan.drops_state
        assert service.get("shop").revision == 1
        assert service.get("shop").state == "running"
        detail, _ = await service.put("shop", changed, drop_state=True)
        assert (detail.revision, detail.parallelism) == (2, 3)
        await eventually(is_in(service, "shop", "running"))
        shop.write()
        await eventually(shop.everything_once)
        await service.stop("shop", drain=True)
        assert sum(row["n"] for row in shop.rows("counts")) == 50, "what was counted before is lost, as was allowed"


@pytest.mark.parametrize("runs", ["after no savepoint was taken", "before the record is written"])
async def test_what_an_old_revision_does_meanwhile_is_planned_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: str
) -> None:
    """It is starting when the plan is made, and runs as soon as it can: then there is state that the plan knows nothing
    of. It has come to it when it is stopped, or never does."""
    shop, reached = Shop(tmp_path), asyncio.Event()
    opened, no_savepoint, saved = Deployment.open, hosted.HostedPipeline._upgrade_savepoint, hosted.HostedPipeline._save

    async def open_later(self: Deployment) -> None:
        await reached.wait()
        await opened(self)

    async def run_now(pipeline: hosted.HostedPipeline) -> None:
        reached.set()
        await eventually(lambda: not pipeline.supervisor.running or shop.everything_once())

    async def upgrade_savepoint(self: hosted.HostedPipeline) -> int | None:
        savepoint = await no_savepoint(self)
        if runs == "after no savepoint was taken":
            await run_now(self)
        return savepoint

    async def save(self: hosted.HostedPipeline, *arguments: Any, **changed: Any) -> None:
        if "revision" in changed:
            await run_now(self)
        await saved(self, *arguments, **changed)

    monkeypatch.setattr(Deployment, "open", open_later)
    monkeypatch.setattr(hosted.HostedPipeline, "_upgrade_savepoint", upgrade_savepoint)
    monkeypatch.setattr(hosted.HostedPipeline, "_save", save)
    monkeypatch.setattr(hosted, "_UNDER_WAY_S", 0.1)
    async with serving(tmp_path) as service:
        shop.write()
        await service.put("shop", shop.yaml())
        assert service.get("shop").state == "starting"
        changed = shop.yaml(counts="n: count(*), last: max(id)")
        if runs == "after no savepoint was taken":
            with pytest.raises(DropsState):
                await service.put("shop", changed)
            revision = 1
        else:
            await service.put("shop", changed)
            revision = 2
        shop.write()
        await eventually(shop.everything_once)
        detail = service.get("shop")
        assert (detail.revision, detail.state, detail.restarts) == (revision, "running", 0)


async def test_a_refused_upgrade_leaves_no_savepoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tmp_path)
    async with serving(tmp_path) as service:
        shop.write()
        await service.put("shop", shop.yaml())
        await eventually(shop.everything_once)
        taken = await service.savepoint("shop")

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(Registry, "write", full)
            with pytest.raises(ServiceFault, match="No space left"):
                await service.rescale("shop", 2)
        newest, *_ = [view for view in await service.checkpoints("shop") if view.id > taken.id]
        assert newest.kind == "periodic"
        assert service.get("shop").savepoints == (taken.id,)
        assert service.get("shop").state == "running"


async def test_what_an_upgrade_was_allowed_to_drop_is_not_dropped_of_another_checkpoint(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with serving(tmp_path) as service:
        shop.write()
        await service.put("shop", shop.yaml())
        await eventually(shop.everything_once)
        savepoint = (await service.savepoint("shop")).id
        await service.put("shop", shop.yaml(counts="n: count(*), last: max(id)"), drop_state=True)
        await eventually(is_in(service, "shop", "running"))
        await service.stop("shop")
        with pytest.raises(
            Conflict, match=r"does not fit the file as it is now: step counts has changed.*Apply the file"
        ):
            await service.start("shop", restore_from=savepoint)
        assert service.get("shop").wanted == "stopped"
        with pytest.raises(DropsState):
            await service.put("shop", shop.yaml())
        await service.put("shop", shop.yaml(), drop_state=True)
        await service.start("shop", restore_from=savepoint)
        await eventually(is_in(service, "shop", "running"))
        shop.write()
        await eventually(shop.everything_once)
        await drained_exactly(service, shop)


async def test_nothing_is_ready_before_it_was_brought_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, reached = Shop(tmp_path), asyncio.Event()
    async with serving(tmp_path) as service:
        await service.put("shop", shop.yaml())
        await service.stop("shop")
    bring_back = hosted.HostedPipeline.bring_back

    async def later(self: hosted.HostedPipeline) -> None:
        await reached.wait()
        await bring_back(self)

    monkeypatch.setattr(hosted.HostedPipeline, "bring_back", later)
    unopened = PipelineService(ServiceConfig(directory=tmp_path / "service"), MetricRegistry(), Redaction())
    assert not unopened.ready
    async with serving(tmp_path) as service:
        assert (service.get("shop").state, service.get("shop").ready, service.ready) == ("stopped", False, False)
        reached.set()
        await eventually(lambda: service.ready)


async def test_a_restarted_service_brings_everything_back(tmp_path: Path) -> None:
    shops = {state: Shop(tmp_path, state) for state in ("running", "stopped", "drained", "rescaled")}
    async with serving(tmp_path) as service:
        for name, shop in shops.items():
            shop.write()
            await service.put(name, shop.yaml())
        for shop in shops.values():
            await eventually(shop.everything_once)
        await service.stop("stopped")
        await service.stop("drained", drain=True)
        await service.rescale("rescaled", 2)
        with pytest.raises(DirectoryInUse):
            async with serving(tmp_path):
                pass
    for shop in shops.values():
        shop.write()
    async with serving(tmp_path) as service:
        await eventually(lambda: service.ready)
        found = {line.name: (line.state, line.wanted, line.parallelism) for line in service.list()}
        assert found == {
            "drained": ("drained", "drained", 1),
            "rescaled": ("running", "running", 2),
            "running": ("running", "running", 1),
            "stopped": ("stopped", "stopped", 1),
        }
        for at_rest in map(service.get, ("stopped", "drained")):
            assert at_rest.checkpoint is not None, "it is in the store, though nothing has run since"
            assert at_rest.checkpoint_at is not None
        await eventually(shops["running"].everything_once)
        await eventually(shops["rescaled"].everything_once)
        assert shops["stopped"].ids() == list(range(50))
        await service.start("stopped")
        await eventually(shops["stopped"].everything_once)
        for name in ("running", "stopped", "rescaled"):
            await drained_exactly(service, shops[name])


async def test_a_service_whose_checkpoints_are_away_begins_nothing_anew_unless_told(tmp_path: Path) -> None:
    shop, other = Shop(tmp_path), Shop(tmp_path, "other")
    async with serving(tmp_path) as service:
        for each in (shop, other):
            each.write()
            await service.put(each.name, each.yaml())
        for each in (shop, other):
            await eventually(each.everything_once)
    store, away = tmp_path / "checkpoints/shop", tmp_path / "away"
    store.rename(away)
    shop.write()
    other.write()
    async with serving(tmp_path) as service:
        await eventually(lambda: str(store) in service.get("shop").message)
        await eventually(other.everything_once)
        assert not service.get("shop").ready
        assert not store.exists(), "whoever comes later must not take it for a beginning"
        away.rename(store)
        await eventually(shop.everything_once)
        await service.stop("shop")
        store.rename(away)
        await service.start("shop")
        await eventually(lambda: "not there any more" in service.get("shop").message)
        assert not store.exists()
        await service.delete("shop")
        await service.put("shop", shop.yaml())
        await eventually(lambda: Counter(shop.ids()) == Counter([*range(100)] * 2))


async def test_going_back_to_a_savepoint_is_done_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with serving(tmp_path) as service:
        shop.write()
        await service.put("shop", shop.yaml())
        await eventually(shop.everything_once)
        savepoint = (await service.savepoint("shop")).id
        shop.write()
        await eventually(shop.everything_once)
        with pytest.raises(Conflict, match="stop it before"):
            await service.start("shop", restore_from=savepoint)
        await service.stop("shop")
        with pytest.raises(ServiceFault, match="there is no checkpoint 999") as unknown:
            await service.start("shop", restore_from=999)
        assert unknown.value.status == 404
        await service.start("shop", restore_from=savepoint)
        record = tmp_path / "service/pipelines/shop/record.json"
        await eventually(lambda: json.loads(record.read_text())["restore_from"] is None)
        await eventually(lambda: Counter(shop.ids()) == Counter([*range(100), *range(50, 100)]))
        await service.stop("shop")
        await service.start("shop")
        await service.stop("shop", drain=True)
        assert len(shop.ids()) == 150, "started again it goes on from where it was"
        shop.check_counts()


async def test_one_failing_pipeline_leaves_another_alone_and_can_be_mended(tmp_path: Path) -> None:
    good, bad = Shop(tmp_path, "good"), Shop(tmp_path, "bad")
    async with serving(tmp_path) as service:
        good.write()
        bad.write()
        await service.put("good", good.yaml())
        await service.put("bad", bad.yaml())
        await eventually(bad.everything_once)
        (tmp_path / "bad/in/poison.json").write_text("{broken\n")
        await eventually(is_in(service, "bad", "failed"))
        detail = service.get("bad")
        assert (detail.wanted, detail.ready) == ("running", False)
        assert "poison.json" in detail.message
        assert detail.failures[0].acts == "user"
        assert service.errors("bad").errors[0].node is None
        assert not service.ready
        good.write()
        await eventually(good.everything_once)
        # Mended by another revision, from its newest checkpoint.
        await service.put("bad", bad.yaml(source="\n    errors: skip"))
        bad.write()
        await eventually(bad.everything_once)
        assert service.get("bad").error_records == 1
        assert service.ready


async def test_a_call_that_never_returns_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LAST_CHECKPOINT_S", 0.3)
    monkeypatch.setattr(supervisor, "CANCELLING_S", 0.3)
    let_go = tmp_path / "let-go"
    (tmp_path / "code").mkdir()
    (tmp_path / "code/stuck.py").write_text(
        "import pathlib, time\n\n\ndef wait(row):\n"
        f"    while not pathlib.Path({str(let_go)!r}).exists():\n        time.sleep(0.01)\n    return row\n"
    )
    stuck, good = Shop(tmp_path, "stuck"), Shop(tmp_path, "good")
    waits = b"  waits: {input: orders, python: {call: 'stuck.py:wait', columns: {id: int64}, mode: row}}\nsinks:\n"
    waits += b"  waited: {type: blackhole, input: waits}\n"
    async with serving(tmp_path, functions=tmp_path / "code") as service:
        stuck.write()
        for parallelism in range(8):  # more of them than there are common worker threads
            name = f"stuck-{parallelism}"
            yaml = stuck.yaml().replace(b"sinks:\n", waits).replace(b"pipeline: stuck", f"pipeline: {name}".encode())
            await service.put(name, yaml.replace(b"/orders,", f"/o-{name},".encode()))
        await service.put("good", good.yaml())
        good.write()
        await eventually(good.everything_once)
        try:
            await eventually(lambda: service.get("stuck-0").records_in > 0)
            stopped = await service.stop("stuck-0")
            assert stopped.wanted == "stopped"
            assert "left behind" in str(service.get("stuck-0").failures[0].message)
            assert service.left_behind
            good.write()
            await eventually(good.everything_once)
        finally:
            let_go.touch()


async def test_code_that_ends_the_process_ends_only_its_pipeline(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("import sys\n\n\ndef leave(row):\n    sys.exit(3)\n")
    shop = Shop(tmp_path)
    leaves = b"  leaves: {input: orders, python: {call: 'leaves.py:leave', columns: {id: int64}, mode: row}}\nsinks:\n"
    leaves += b"  left: {type: blackhole, input: leaves}\n"
    async with serving(tmp_path, functions=tmp_path) as service:
        shop.write()
        await service.put("shop", shop.yaml().replace(b"sinks:\n", leaves))
        await eventually(is_in(service, "shop", "failed"))
        assert "SystemExit" in service.get("shop").message


async def test_a_run_that_ends_by_what_is_no_exception_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def panics(*_: object) -> None:
        raise PanicException("out of range")

    monkeypatch.setattr(supervisor, "run_pipeline", panics)
    async with serving(tmp_path) as service:
        detail, _ = await service.put("shop", Shop(tmp_path).yaml())
        assert (detail.state, detail.ready) == ("failed", False)
        assert "PanicException: out of range" in detail.message


async def test_what_is_refused(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with serving(tmp_path) as service:
        with pytest.raises(FaultyPipeline, match="sent for the pipeline 'other'"):
            await service.put("other", shop.yaml())
        with pytest.raises(FaultyPipeline, match="runs no user code"):
            await service.put(
                "shop", shop.yaml().replace(b"sinks:", b"  x: {input: orders, python: {call: 'a.py:f'}}\nsinks:")
            )
        assert service.list() == ()
        with pytest.raises(UnknownPipeline):
            service.get("shop")
        await service.put("shop", shop.yaml())
        await service.stop("shop")
        for asked in (service.savepoint("shop"), service.stop("shop", drain=True)):
            with pytest.raises(Conflict, match="is stopped"):
                await asked
        assert (await service.stop("shop")).state == "stopped"
        with pytest.raises(ServiceFault, match="no source, step or sink nobody") as unknown:
            service.why("shop", "nobody")
        assert unknown.value.status == 404


async def test_deleting_forgets_all_but_the_checkpoints(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    config = ServiceConfig(directory=tmp_path / "service", checkpoints=f"file:{tmp_path}/checkpoints")
    metrics = MetricRegistry()
    service = PipelineService(config, metrics, Redaction())
    await service.open()
    shop.write()
    await service.put("shop", shop.yaml())
    await eventually(shop.everything_once)
    assert b'pipeline="shop"' in metrics.render()
    await service.delete("shop")
    assert service.list() == ()
    assert b'pipeline="shop"' not in metrics.render()
    assert not list((tmp_path / "service/pipelines").iterdir())
    assert list((tmp_path / "checkpoints/shop").glob("chk-*/manifest.json"))
    # Created again, it goes on from them.
    shop.write()
    await service.put("shop", shop.yaml())
    await eventually(shop.everything_once)
    await service.close()


async def test_checkpoints_stay_where_they_are_when_the_service_is_told_another_place(tmp_path: Path) -> None:
    shop, later = Shop(tmp_path), Shop(tmp_path, "later")
    async with serving(tmp_path) as service:
        shop.write()
        await service.put("shop", shop.yaml())
        await eventually(shop.everything_once)
    async with serving(tmp_path, checkpoints=f"file:{tmp_path}/elsewhere") as service:
        shop.write()
        later.write()
        await service.put("later", later.yaml())
        await eventually(lambda: shop.everything_once() and later.everything_once())
        assert (await service.plan("shop", shop.yaml())).action == "nothing"
        moved = shop.yaml().replace(b"every: 200ms", f"every: 200ms, storage: 'file:{tmp_path}/third'".encode())
        with pytest.raises(StorageMoved):
            await service.plan("shop", moved)
    assert not (tmp_path / "elsewhere/shop").exists()
    assert list((tmp_path / "elsewhere/later").glob("chk-*/manifest.json"))


async def test_a_damaged_record_costs_one_pipeline_until_it_is_put_again(tmp_path: Path) -> None:
    shop, other = Shop(tmp_path), Shop(tmp_path, "other")
    async with serving(tmp_path) as service:
        for each in (shop, other):
            each.write()
            await service.put(each.name, each.yaml())
            await eventually(each.everything_once)
    record = tmp_path / "service/pipelines/shop/record.json"
    record.write_bytes(record.read_bytes()[:40])
    async with serving(tmp_path) as service:
        await eventually(is_in(service, "other", "running"))
        detail = service.get("shop")
        assert (detail.state, detail.ready) == ("failed", False)
        assert "record.json is damaged" in detail.message
        with pytest.raises(Conflict, match=r"record\.json is damaged"):
            await service.start("shop")
        shop.write()
        detail, created = await service.put("shop", shop.yaml())
        assert created
        await eventually(shop.everything_once)


async def test_a_full_disk_refuses_the_wish_and_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path)
    async with serving(tmp_path) as service:
        shop.write()
        await service.put("shop", shop.yaml())
        await eventually(shop.everything_once)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr("streamproc.service.registry.write_file", full)
            with pytest.raises(RegistryUnwritable, match="No space left"):
                await service.stop("shop")
        assert (service.get("shop").state, service.get("shop").wanted) == ("running", "running")
