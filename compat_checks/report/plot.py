"""Errors of each case as inline SVG: tfsampled, TensorFlow and the budget."""

from __future__ import annotations

import math
from html import escape
from typing import Any

WIDTH, HEIGHT = 1080.0, 340.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 30.0, 84.0
LOW, HIGH = 1e-2, 1e2  # ulp; what is further off is drawn at the edge


def errors_plot(cases: list[dict[str, Any]]) -> str:
    """One column a case, at its worst array; families side by side."""
    drawn = [(case, _worst_array(case)) for case in cases if case["arrays"]]
    if not drawn:
        return "<p>No case here has numbers to compare.</p>"
    step = (WIDTH - LEFT - RIGHT) / len(drawn)
    marks, budget = [], []
    for column, (case, array) in enumerate(drawn):
        x = LEFT + (column + 0.5) * step
        budget.append(f"{x:.1f},{_y(array['allowed']):.1f}")
        title = f"{case['name']}, {array['array']}"
        marks.append(
            _dot(x, array["tensorflow"], "var(--reference)", title, "TensorFlow")
        )
        colour = "var(--actual)" if case["passed"] else "var(--bad)"
        marks.append(_dot(x, array["tfsampled"], colour, title, "tfsampled"))
    line = (
        f'<polyline points="{" ".join(budget)}" fill="none" '
        'stroke="var(--allowed)" stroke-width="1.5"/>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" width="100%" role="img" '
        'aria-label="Largest error of each case in ulp, on a log scale">'
        f"{_axis()}{_families(drawn, step)}{line}{''.join(marks)}{_legend()}</svg>"
    )


def _worst_array(case: dict[str, Any]) -> dict[str, Any]:
    def share(array: dict[str, Any]) -> float:
        return (
            math.inf
            if array["tfsampled"] is None
            else array["tfsampled"] / array["allowed"]
        )

    return max(case["arrays"], key=share)


def _y(error: float | None) -> float:
    shown = HIGH if error is None else min(max(error, LOW), HIGH)
    part = math.log(shown / LOW) / math.log(HIGH / LOW)
    return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def _dot(x: float, error: float | None, colour: str, title: str, who: str) -> str:
    value = "not finite" if error is None else f"{error:.3g} ulp"
    return (
        f'<circle cx="{x:.1f}" cy="{_y(error):.1f}" r="2.1" fill="{colour}" '
        f'fill-opacity=".75"><title>{escape(title)}: {who} {value}</title></circle>'
    )


def _axis() -> str:
    parts = []
    for exponent in range(round(math.log10(LOW)), round(math.log10(HIGH)) + 1):
        y = _y(10.0**exponent)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="var(--line)"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**exponent:g}'
            "</text>"
        )
    label = f'<text x="{LEFT - 40}" y="{TOP - 12}">ulp</text>'
    return "".join(parts) + label


def _families(drawn: list[tuple[dict[str, Any], dict[str, Any]]], step: float) -> str:
    parts, first = [], 0
    names = [case["family"] for case, _ in drawn]
    for end in range(1, len(names) + 1):
        if end < len(names) and names[end] == names[first]:
            continue
        left, middle = LEFT + first * step, LEFT + (first + end) / 2 * step
        low = HEIGHT - BOTTOM
        parts.append(
            f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{TOP}" y2="{low}" '
            'stroke="var(--line)" stroke-dasharray="3 3"/>'
            f'<text transform="translate({middle:.1f} {low + 14}) rotate(-40)" '
            f'text-anchor="end">{escape(names[first])}</text>'
        )
        first = end
    return "".join(parts)


def _legend() -> str:
    entries = [("tfsampled", "var(--actual)"), ("TensorFlow", "var(--reference)")]
    entries += [("allowed", "var(--allowed)"), ("differs", "var(--bad)")]
    return "".join(
        f'<circle cx="{LEFT + 70 + 100 * i}" cy="{TOP - 16}" r="4" fill="{colour}"/>'
        f'<text x="{LEFT + 80 + 100 * i}" y="{TOP - 12}">{name}</text>'
        for i, (name, colour) in enumerate(entries)
    )
