"""The progress display and the table in the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.table import Table

from compat_checks.cases.case import MODES, Case
from compat_checks.judge.check import Result
from compat_checks.judge.processes import check_all
from compat_checks.report.record import Run, device_name

if TYPE_CHECKING:
    from compat_checks.kernels.placement import Placement

MAX_CASES = 20  # listed with reasons; the record and the page list all
MAX_REASONS = 4


def run_with_progress(
    console: Console, cases: list[Case], device: str, jobs: int, tf32: bool
) -> list[Result]:
    """Checks `cases` under a progress bar."""
    columns = (
        TextColumn("{task.fields[device]}"),
        BarColumn(),
        MofNCompleteColumn(),
        Elapsed(),
        TextColumn("{task.fields[failed]} failed  {task.description}"),
    )
    results = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(cases), device=device, failed=0)
        for result in check_all(cases, device, jobs, tf32):
            results.append(result)
            failed = sum(not result.passed for result in results)
            name = result.case.name
            progress.update(task, advance=1, failed=failed, description=name)
    return results


def show_placements(
    console: Console, placements: Iterable[tuple[str, Placement]]
) -> None:
    """Prints what a GPU would run of each function, as it is found."""
    for name, found in placements:
        console.print(f"[bold]{name}[/]: {found.operations} operations")
        for title, counts in (
            ("no GPU kernel", found.without_kernel),
            ("read on the host", found.reads),
            ("copied to the GPU", found.copies),
        ):
            if counts:
                listed = ", ".join(f"{n} x {what}" for what, n in counts.items())
                line = f"    {title}: {counts.total()} ({listed})"
                console.print(line, markup=False, highlight=False)


def show(console: Console, run: Run) -> None:
    """Prints families by modes, the largest errors, and the first differences."""
    console.print(table(run))
    failed = [result for result in run.results if not result.passed]
    for result in failed[:MAX_CASES]:
        console.print(f"[red]✗[/] {result.case.name}", highlight=False)
        reasons = result.reasons()
        for reason in reasons[:MAX_REASONS]:
            console.print(f"    {reason}", markup=False, highlight=False)
        if len(reasons) > MAX_REASONS:
            console.print(f"    ... and {len(reasons) - MAX_REASONS} more")
    if len(failed) > MAX_CASES:
        console.print(f"... and {len(failed) - MAX_CASES} more")
    total = len(run.results)
    line = f"{total - len(failed)} of {total} equal on {run.device}"
    colour = "red" if failed else "green"
    console.print(f"[bold {colour}]{line}[/] ({run.seconds:.0f} s)", highlight=False)


def table(run: Run) -> Table:
    """Returns a row for each family: passed/all by mode, largest errors in ulp."""
    out = Table(
        title=f"{run.device}: {device_name(run.device)}",
        caption="equal/all by mode; largest errors in ulp",
    )
    out.add_column("family", no_wrap=True)
    for mode in MODES:
        out.add_column(mode.removeprefix("function_"), justify="right")
    for heading in ("tfsampled", "TensorFlow", "s"):
        out.add_column(heading, justify="right")
    families = dict.fromkeys(result.case.family for result in run.results)
    for family in families:
        family_results = [
            result for result in run.results if result.case.family == family
        ]
        by_mode = [[r for r in family_results if r.case.mode == mode] for mode in MODES]
        verdicts = [verdict for result in family_results for verdict in result.verdicts]
        out.add_row(
            family,
            *(_passed(results) for results in by_mode),
            _largest(verdict.actual_max for verdict in verdicts),
            _largest(verdict.reference_max for verdict in verdicts),
            f"{sum(result.seconds for result in family_results):.1f}",
        )
    return out


def _passed(results: list[Result]) -> str:
    if not results:
        return ""
    passed = sum(result.passed for result in results)
    colour = "green" if passed == len(results) else "red"
    return f"[{colour}]{passed}/{len(results)}[/]"


def _largest(errors: Iterable[float]) -> str:
    largest = max(errors, default=None)
    return "" if largest is None else f"{largest:.2f}" if largest < 1e4 else "> 1e4"
