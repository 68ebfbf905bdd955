"""Contrasts of the page's colours, computed from the tokens of its style sheet (WCAG 2.2, 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re

import pytest

from streamproc.service.page.render import STATIC_FILES

TEXT = [
    *((ink, ground) for ink in ("ink", "quiet", "accent", "bad") for ground in ("ground", "surface", "sunken")),
    *((tone, "surface") for tone in ("good", "attention")),
    *((tone, f"{tone}-tint") for tone in ("good", "attention", "bad")),
    *((ink, f"{tone}-tint") for ink in ("ink", "quiet", "accent") for tone in ("good", "attention", "bad")),
    *((tone, "ground") for tone in ("good", "attention", "bad")),
    *((tone, "bad-tint") for tone in ("good", "attention", "quiet")),
    ("on-accent", "accent"),
    ("surface", "bad"),
]
SHAPES = [(token, "surface") for token in ("control", "edge", "busy", "backpressured", "accent")]


def tokens(*, dark: bool) -> dict[str, str]:
    css = STATIC_FILES["page.css"].decode()
    roots = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    found: dict[str, str] = {}
    for root in roots[: 2 if dark else 1]:
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", root))
    return found


def luminance(colour: str) -> float:
    def linear(part: int) -> float:
        share = part / 255
        return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)

    red, green, blue = (linear(int(colour[at : at + 2], 16)) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_black_on_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(dark: bool) -> None:
    known = tokens(dark=dark)
    weak = {(ink, ground): contrast(known[ink], known[ground]) for ink, ground in TEXT}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_shapes_can_be_seen(dark: bool) -> None:
    known = tokens(dark=dark)
    weak = {(ink, ground): contrast(known[ink], known[ground]) for ink, ground in SHAPES}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 3} == {}


def test_every_colour_is_a_token() -> None:
    css = STATIC_FILES["page.css"].decode()
    rules = re.sub(r":root \{.*?\}", "", css, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b|rgba?\(|hsla?\(", re.sub(r"(?m)^#[^{]*", "", rules)) == []
    assert set(re.findall(r"var\(--([\w-]+)\)", rules)) <= {*tokens(dark=False), "mono", "sans", "space"}
