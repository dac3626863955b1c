"""The report as one self-contained page: no script, no resource from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

from compat_checks.report.plot import errors_plot

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #667085; --paper: #fbfbf9;
  --line: #dfe2e8; --good: #13795b; --bad: #c0362c; --actual: #2456c9; --reference:
  #d97706; --allowed: #8a94a6; --card: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --dim: #98a2b3;
  --paper: #14171d; --line: #2c323d; --good: #4cc38a; --bad: #ff7a6e; --actual: #7aa2ff;
  --reference: #f5b04c; --allowed: #7d8798; --card: #1b1f27; } }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { margin: 2.5rem 0 .75rem; }
.dim { color: var(--dim); } .good { color: var(--good); } .bad { color: var(--bad); }
.verdict { font-size: 1.2rem; font-weight: 650; margin: 1rem 0; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: .75rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; color: var(--dim); } tr:last-child td { border-bottom: 0; }
details { margin: .4rem 0; } summary { cursor: pointer; }
code, pre { font: .85rem/1.45 ui-monospace, monospace; white-space: pre-wrap; }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
"""


def page(record: dict[str, Any]) -> str:
    """The HTML text of a record (see `record.as_dict`)."""
    versions = record["versions"]
    facts = (
        f"TensorFlow {versions['tensorflow']}, Keras {versions['keras']}, "
        f"NumPy {versions['numpy']}, Python {versions['python']} · {record['cpu']}"
    )
    body = "".join(_run(run) for run in record["runs"])
    rule = record["rule"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tfsampled against TensorFlow</title><style>{STYLE}</style></head><body>
<h1>tfsampled against TensorFlow</h1>
<p class="dim">{escape(facts)}<br>{escape(versions["system"])}</p>
{body}
<h2>The rule</h2>
<p>Errors are distances to a float64 truth in ulps at each element's natural scale: the
sum of the absolute values of what enters it. An array passes when its largest error is
within TensorFlow's own plus {rule["max_ulps"]:g} ulp, and its rms error within
TensorFlow's plus {rule["rms_ulps"]:g} ulp.</p>
</body></html>
"""


def _run(run: dict[str, Any]) -> str:
    cases = run["cases"]
    failed = [case for case in cases if not case["passed"]]
    verdict = (
        f'<p class="verdict bad">{len(failed)} of {len(cases)} cases differ</p>'
        if failed
        else f'<p class="verdict good">All {len(cases)} cases equal</p>'
    )
    heading = f"{run['device']} · {run['name']}"
    return f"""<section><h2>{escape(heading)}</h2>{verdict}
<p class="dim">{run["seconds"]:g} seconds</p>
<div class="wide">{_table(cases)}</div>
<h2>Error per case</h2><div class="wide">{errors_plot(cases)}</div>
{_failures(failed)}{_details(cases)}</section>"""


def _families(cases: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    families: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        families.setdefault(case["family"], []).append(case)
    return families


def _table(cases: list[dict[str, Any]]) -> str:
    rows = []
    for family, mine in _families(cases).items():
        passed = sum(case["passed"] for case in mine)
        colour = "good" if passed == len(mine) else "bad"
        seconds = sum(case["seconds"] for case in mine)
        rows.append(
            f"<tr><td>{escape(family)}</td>"
            f'<td class="{colour}">{passed} of {len(mine)}</td>'
            f"<td>{_worst(mine, 'tfsampled')}</td><td>{_worst(mine, 'tensorflow')}</td>"
            f"<td>{_relative(mine)}</td>"
            f"<td>{seconds:.1f}</td></tr>"
        )
    return (
        "<table><thead><tr><th>family</th><th>equal</th><th>tfsampled, ulp</th>"
        "<th>TensorFlow, ulp</th><th>relative to TensorFlow</th><th>seconds</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _relative(cases: list[dict[str, Any]]) -> str:
    numbers = [case["relative"] for case in cases]
    return "not finite" if None in numbers else f"{max(numbers):.1e}"


def _worst(cases: list[dict[str, Any]], who: str) -> str:
    errors = [array[who] for case in cases for array in case["arrays"]]
    if not errors:
        return "none"
    if None in errors:
        return "not finite"
    return f"{max(errors):.3g}"


def _failures(failed: list[dict[str, Any]]) -> str:
    if not failed:
        return ""
    items = "".join(
        f"<details open><summary class='bad'>{escape(case['name'])}</summary>"
        f"<pre>{escape(chr(10).join(case['reasons']))}</pre></details>"
        for case in failed
    )
    return f"<h2>Differences</h2>{items}"


def _details(cases: list[dict[str, Any]]) -> str:
    """Every case, folded away by family."""
    parts = []
    for family, mine in _families(cases).items():
        rows = "".join(
            f"<tr><td>{escape(case['name'])}</td><td>{escape(case['mode'])}</td>"
            f"<td>{'equal' if case['passed'] else 'differs'}</td>"
            f"<td>{_worst([case], 'tfsampled')}</td>"
            f"<td>{_worst([case], 'tensorflow')}</td>"
            "</tr>"
            for case in mine
        )
        parts.append(
            f"<details><summary>{escape(family)} ({len(mine)})</summary>"
            '<div class="wide"><table><thead><tr><th>case</th><th>mode</th>'
            "<th>result</th><th>tfsampled, ulp</th>"
            "<th>TensorFlow, ulp</th></tr></thead>"
            f"<tbody>{rows}</tbody></table></div></details>"
        )
    return f"<h2>Every case</h2>{''.join(parts)}"
