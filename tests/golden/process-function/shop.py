from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from streamproc import Context, ListState, MapState, ProcessFunction, ValueState

FAR = datetime(2100, 1, 1, tzinfo=UTC)


class Minutes(ProcessFunction):
    """Orders of each minute, once it is over; a summary of all minutes at the end."""

    orders = ValueState("int64", default=0)
    cents = MapState("timestamp", {"orders": "int64", "cents": "int64"}, ttl="30d")
    minutes = ListState("timestamp")

    def process(self, row: dict[str, Any], ctx: Context) -> None:
        cents = round(row["amount"] * 100)
        minute = row["at"].replace(second=0, microsecond=0)
        before = self.cents.get(minute, {"orders": 0, "cents": 0})
        self.cents.set(minute, {"orders": before["orders"] + 1, "cents": before["cents"] + cents})
        self.orders.set(self.orders.get() + 1)
        ctx.timer(minute + timedelta(minutes=1))
        ctx.timer(FAR)
        if cents > 3000:
            ctx.side("large", {"id": row["id"], "cents": cents})

    def on_timer(self, time: datetime, ctx: Context) -> Iterator[dict[str, Any]]:
        if time == FAR:
            row = {"country": ctx.key, "minutes": len(self.minutes.get()), "orders": self.orders.get()}
            ctx.side("summary", row)
            return
        minute = time - timedelta(minutes=1)
        self.minutes.add(minute)
        yield {"country": ctx.key, "minute": minute, **self.cents.get(minute)}
        self.cents.delete(minute)
