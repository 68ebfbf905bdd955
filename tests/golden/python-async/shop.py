import asyncio
from typing import Any

RATES = {"US": 1.1, "FR": 1.0, "JP": 0.006, "DE": 1.0}
tried: set[int] = set()


async def rate(row: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0.001 * (row["id"] % 3))
    if row["id"] % 100 == 7 and row["id"] not in tried:
        tried.add(row["id"])
        raise ConnectionError("the first try fails")
    if row["id"] == 8:
        raise LookupError("no rate for order 8")
    return {"rate": RATES[row["country"]]}
