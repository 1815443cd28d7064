"""What the methods of ``tangeval.analysis`` promise, measured on studies whose truth is known.

    python -m benchmarks.statistics [--quick] [--only NAME …] [--out results/bench/statistics.json]

benchmarks/coverage.py says how often intervals hold the truth, benchmarks/decisions.py how often tests are wrong and
what is left of a winner's luck. BLEU is of real texts (benchmarks/worlds.py), near its floor above all. Needs HW5
($TANGEVAL_DATA) and a clone. Prints tables and writes JSON.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import coverage, decisions
from benchmarks.command import command_line
from benchmarks.coverage import Row

#: What is measured: by what, with how many studies of each kind, and what its table says. The longest first.
SECTIONS: dict[str, tuple[Callable[[int], Iterator[Row]], int, str]] = {
    "false alarms": (
        decisions.false_alarms,
        600,
        "BLEU of two sides of one law: found different, % (bar: at most 6)",
    ),
    "winners": (
        decisions.winners,
        150,
        "the best setting's bias, and its interval (bar: left at most 0.15, holds 95 %)",
    ),
    "BLEU": (
        coverage.bleu,
        600,
        "BLEU: % of studies that show an interval, a false one; of those shown, % that hold (bar: 93)",
    ),
    "BLEU differences": (coverage.bleu_differences, 300, "differences of BLEU, the same"),
    "self-BLEU": (coverage.self_bleu, 2000, "self-BLEU, the same"),
    "families": (
        decisions.families,
        1000,
        "ten settings against one: found where none differs, % (bar: 5), and where five do",
    ),
    "as good": (
        decisions.declared,
        500,
        "declared as good as the best within a margin: how many, and a false one, % of studies (bar: 5)",
    ),
    "power": (decisions.powers, 2000, "found with the poems needed, % (bar: 80)"),
    "rates": (coverage.rates, 4000, "shares: % of 95 % intervals that hold the truth (bar: 93 to 97)"),
    "rate differences": (
        coverage.rate_differences,
        500,
        "differences of shares: % that hold (bar: 93), are flat, lie beyond 1",
    ),
    "real rate differences": (
        coverage.real_rate_differences,
        2000,
        "differences of checkpoints' shares, the same",
    ),
    "means": (coverage.means, 4000, "means and differences of means: % that hold"),
}


def main() -> None:
    parser = command_line(__file__, __doc__, quick="studies", out=True)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    begin, scale = time.perf_counter(), 0.1 if options.quick else 1.0
    with ProcessPoolExecutor(options.workers) as pool:
        found = list(pool.map(_measured, options.only, [scale] * len(options.only)))
    report: dict[str, Any] = dict(zip(options.only, found, strict=True))
    console = Console(width=130)
    for name, section in report.items():
        show(console, name, section["rows"])
        console.print(f"{section['seconds']:.0f} s", highlight=False)
    report["seconds"] = time.perf_counter() - begin
    console.print(f"{report['seconds']:.0f} s in all", highlight=False)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2, default=float) + "\n", encoding="utf-8")


def _measured(name: str, scale: float) -> dict[str, Any]:
    measure, runs, _ = SECTIONS[name]
    begin = time.process_time()
    rows = list(measure(max(round(runs * scale), 10)))
    return {"rows": rows, "seconds": time.process_time() - begin}


def show(console: Console, name: str, rows: Sequence[Row]) -> None:
    """Print a section's rows, and the least, the middle and the most of its shares by number of poems."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = Table(*columns, title=f"{name}: {SECTIONS[name][2]}")
    for row in rows:
        table.add_row(*(_cell(row.get(column, "")) for column in columns))
    console.print(table)
    if len(rows) < 2 * len({row["poems"] for row in rows}):
        return
    shares = [column for column in columns if any(isinstance(row.get(column), dict) for row in rows)]
    table = Table("poems", *shares, title=f"{name}: least, middle, most, %")
    for poems in dict.fromkeys(row["poems"] for row in rows):
        own = [[row[c]["share"] for row in rows if row["poems"] == poems and c in row] for c in shares]
        table.add_row(
            str(poems),
            *(
                ", ".join(f"{100 * x:.1f}" for x in np.quantile(each, [0, 0.5, 1])) if each else ""
                for each in own
            ),
        )
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return f"{100 * value['share']:.1f} ± {100 * value['error']:.1f}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
