"""The frontier as an SVG picture: what can be asked for, and where the service stands. No library: lines and words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from models.profiles import OperatingPoint

SVG = "image/svg+xml"

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 24, 52
_TICKS = 5
# Of the span, left free on either side of the outermost points.
_MARGIN = 0.06


@dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high` along a line from pixel `start` to pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    @staticmethod
    def over(values: Sequence[float], start: float, end: float) -> "_Axis":
        low, high = min(values), max(values)
        free = _MARGIN * (high - low) or 0.5 * abs(high) or 1.0
        return _Axis(low - free, high + free, start, end)

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> Iterator[float]:
        """Round numbers, about `_TICKS` of them."""
        rough = (self.high - self.low) / _TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = min((unit * factor for factor in (1, 2, 5, 10)), key=lambda each: abs(each - rough))
        number = math.ceil(self.low / step)
        while number * step <= self.high:
            yield number * step
            number += 1


def frontier_svg(
    frontier: Sequence[OperatingPoint], named: Mapping[str, OperatingPoint], in_force: OperatingPoint | None
) -> str:
    """Top-1 against mean GMACs: all points joined, the named ones with their names, the one in force filled."""
    points = [*frontier, *named.values(), *([in_force] if in_force is not None else [])]
    x = _Axis.over([point.mean_gmacs for point in points] or [0.0], _LEFT, _WIDTH - _RIGHT)
    y = _Axis.over([100 * point.top1 for point in points] or [0.0], _HEIGHT - _BOTTOM, _TOP)

    def place(point: OperatingPoint) -> tuple[float, float]:
        return x.at(point.mean_gmacs), y.at(100 * point.top1)

    line = " ".join(f"{left:.1f},{top:.1f}" for left, top in map(place, frontier))
    parts = [*_axes(x, y), f'<polyline points="{line}" fill="none" stroke="#1f77b4" stroke-width="1.5"/>']
    parts += [_circle(place(point), 2.5, "#1f77b4") for point in frontier]
    for name, point in named.items():
        left, top = place(point)
        parts += [_circle((left, top), 5, "none"), _text(left + 8, top + 14, name, "start")]
    if in_force is not None:
        parts.append(_circle(place(in_force), 5, "#d62728"))
        parts.append(_text(_WIDTH - _RIGHT, _TOP - 8, "● in force", "end", "#d62728"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img">\n<title>Accuracy against computation</title>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _axes(x: _Axis, y: _Axis) -> Iterator[str]:
    bottom = _HEIGHT - _BOTTOM
    for value in x.ticks():
        yield f'<line x1="{x.at(value):.1f}" x2="{x.at(value):.1f}" y1="{_TOP}" y2="{bottom}" stroke="#ddd"/>'
        yield _text(x.at(value), bottom + 18, f"{value:g}", "middle")
    for value in y.ticks():
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y.at(value):.1f}" y2="{y.at(value):.1f}" stroke="#ddd"/>'
        yield _text(_LEFT - 8, y.at(value) + 4, f"{value:g}", "end")
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, "mean GMACs an image", "middle")
    yield _text(_LEFT, _TOP - 8, "top-1 on the report split, %", "start")


def _circle(place: tuple[float, float], radius: float, fill: str) -> str:
    return (
        f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius}" fill="{fill}" stroke="#333" stroke-width="1"/>'
    )


def _text(left: float, top: float, words: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
