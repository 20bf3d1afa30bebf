"""What all figures share: the look of a method, axes, and foreign text made safe for plotly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import format as fmt

PALETTE = ("#3d85c6", "#e0662f", "#1a9e77", "#c05fa0", "#b8860b", "#6a5acd", "#d6455d", "#2f9eb5", "#8c6d4f", "#7f8c3a")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "pentagon", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
GREY = "#8c8c8c"


class Style:
    """Colour, symbol and dash of each method, the same on the whole page."""

    def __init__(self, methods: Sequence[str]):
        self._place = {name: index for index, name in enumerate(sorted(set(methods)))}

    def colour(self, method: str) -> str:
        return PALETTE[self._place[method] % len(PALETTE)]

    def symbol(self, method: str) -> str:
        # Shifted by one turn of the palette, so that the eleventh method differs from the first.
        place = self._place[method]
        return SYMBOLS[(place + place // len(PALETTE)) % len(SYMBOLS)]

    def dash(self, method: str) -> str:
        # Of those that share a colour each has a dash of its own.
        return DASHES[self._place[method] // len(PALETTE) % len(DASHES)]


def title_of(name: str, better: str = "", unit: str = "") -> str:
    arrow = {"higher": " ↑", "lower": " ↓"}.get(better, "")
    shown = {"1": "", "": ""}.get(unit, f" ({fmt.clean(unit, 20)})")
    return fmt.clean(name.removeprefix("quality."), 60) + shown + arrow


def axis(name: str, values: Sequence[float], better: str = "", unit: str = "") -> dict[str, Any]:
    """An axis with its title; logarithmic where costs span more than a factor of five, or errors a hundred."""
    low, high = min(values), max(values)
    if low > 0 and high > (100 if name.startswith("quality.") else 5) * low:
        return {"title": {"text": html(title_of(name, better))}, **logarithmic(low, high, unit)}
    return {"title": {"text": html(title_of(name, better, unit))}, "exponentformat": "SI"}


def logarithmic(low: float, high: float, unit: str = "") -> dict[str, Any]:
    places, texts = fmt.ticks(low, high, unit)
    return {"type": "log", "tickvals": places, "ticktext": [html(text) for text in texts]}


def html(text: str, limit: int = 80) -> str:
    """plotly draws a subset of HTML in its texts (links too): foreign strings go through this."""
    return fmt.clean(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "% {")
