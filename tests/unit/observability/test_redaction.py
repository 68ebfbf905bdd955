"""What was once said to be secret is shown nowhere."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.observability.redaction import REDACTED, Redaction


def test_a_secret_is_hidden_in_every_spelling() -> None:
    redaction = Redaction(["p@ss/w\\d"])
    shown = redaction.text(f"p@ss/w\\d p%40ss%2Fw%5Cd {'p@ss/w' + chr(92) + 'd'!r}")
    assert shown == f"{REDACTED} {REDACTED} '{REDACTED}'"


def test_nested_values_are_hidden_by_value_and_by_key() -> None:
    found = Redaction(["hunter2"]).value({"list": ["x hunter2", 1], "sasl": {"Auth_Token": "t", "username": "svc"}})
    assert found == {"list": [f"x {REDACTED}", 1], "sasl": {"Auth_Token": REDACTED, "username": "svc"}}


def test_a_short_secret_does_not_eat_every_text() -> None:
    redaction = Redaction(["a", ""])
    assert redaction.text("a path a/b at last") == f"{REDACTED} path {REDACTED}/b at last"


SECRETS = st.lists(
    st.text("abcé%/ '", min_size=4).map(str.strip).filter(lambda text: len(text) >= 4), min_size=1, max_size=4
)


@settings(max_examples=50, deadline=None)
@given(SECRETS, st.text("0123.", max_size=10), st.text("0123.", max_size=10))
def test_no_secret_survives_even_where_one_is_part_of_another(secrets: list[str], before: str, after: str) -> None:
    redaction = Redaction(secrets)
    for secret in secrets:
        assert redaction.text(before + secret + after) == before + REDACTED + after
