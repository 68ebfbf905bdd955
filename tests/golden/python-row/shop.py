from typing import Any


def score(row: dict[str, Any]) -> dict[str, Any] | None:
    if row["amount"] < 5:
        return None
    if row["id"] % 50 == 0:
        raise ValueError("no score")
    return {"risk": row["amount"] / 100, "tags": [row["country"].lower(), "big"][: 2 if row["amount"] > 50 else 1]}
