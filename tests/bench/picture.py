"""The run as a picture: a bar for each contestant, in SVG that is legible on light and on dark."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.bench.contestants import LOAD_GENERATOR, Phase
from tests.bench.rounds import Series, rate_of_base

_WIDTH = 1000
_NAMES_WIDTH = 270
_BARS_WIDTH = 340
_ROW = 22
_BAR = 14
_TITLE = 40
_MARGIN = 16
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.muted { fill: #57606a }
.ours { fill: #2da44e } .other { fill: #8c959f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .muted { fill: #9198a1 } .ours { fill: #3fb950 } .other { fill: #6e7681 }
}
"""


def draw(phases: Sequence[tuple[Phase, Sequence[Series]]]) -> str:
    """An SVG document: the rate of each contestant, phase by phase, each phase to a scale of its own."""
    parts: list[str] = []
    top = float(_MARGIN)
    for phase, series in phases:
        # The load generator's ceiling would dwarf what the picture is about.
        shown = [one for one in series if one.contestant.name != LOAD_GENERATOR]
        parts.append(_text(_MARGIN, top + 18, phase.title, "title"))
        top += _TITLE
        most = max((one.rate for one in shown), default=0) or 1.0
        for one in shown:
            parts += _row(one, top, most, phase.base, rate_of_base(one, phase, series))
            top += _ROW
        top += _MARGIN
    height = round(top)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img" aria-label="Claims per second of each contestant">\n<style>{_STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _row(one: Series, top: float, most: float, base: str, base_rate: float | None) -> list[str]:
    width = one.rate / most * _BARS_WIDTH
    kind = "ours" if one.contestant.servers[0].kind == "claimsvc" else "other"
    value = f"{one.rate:,.0f}/s" + (f" · {one.rate / base_rate:.2f} of {base}" if base_rate else "")
    baseline = top + _BAR - 2
    return [
        _text(_MARGIN, baseline, one.contestant.name),
        f'<rect class="{kind}" x="{_MARGIN + _NAMES_WIDTH}" y="{top:g}" width="{width:.1f}" height="{_BAR}" rx="2"/>',
        _text(_MARGIN + _NAMES_WIDTH + width + 8, baseline, f"{value} · p99 {one.p99_ms:.0f} ms", "muted"),
    ]


def _text(x: float, y: float, content: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:g}"' + (f' class="{kind}"' if kind else "") + f">{escape(content)}</text>"
