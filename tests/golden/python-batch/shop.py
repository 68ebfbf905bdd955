import polars as pl


def score(frame: pl.DataFrame) -> pl.DataFrame:
    if (frame["id"] % 37 == 0).any():
        raise ValueError("no score for an id divisible by 37")
    return frame.with_columns(risk=pl.col("amount") / 100, amount=pl.col("amount").cast(pl.Decimal(10, 2)))
