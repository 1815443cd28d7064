"""Tables: what they say, in which order, and that Markdown, LaTeX and the terminal can show it."""

import io
import itertools
import shutil
import subprocess
from dataclasses import replace

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from tangeval import tasks
from tangeval.analysis.summarize import Summary
from tangeval.core.knobs import COMMON_AXES
from tangeval.core.untrusted import inert
from tangeval.core.words import speaking
from tangeval.reporting import tables

METRICS = tasks.load("tang").metrics
MEASURES = [f"{metric.name}{end}" for metric in METRICS.values() for end in ("", "_low", "_high")]
NO_CURVE = pd.DataFrame(columns=["split"])
WHOLE = {"step": "Int64", "top_k": "Int64", "max_length": "Int64", "no_repeat_ngram_size": "Int64"}


def measured(value: float) -> dict[str, float]:
    """Every metric at ``value``, a share capped at 1, and an interval of ± 0.1."""
    row = {}
    for metric in METRICS.values():
        middle = min(value, 1.0) if metric.share else value
        row |= {metric.name: middle, f"{metric.name}_low": middle - 0.1, f"{metric.name}_high": middle + 0.1}
    return row


def frames(
    steps=(50, 200), temperature=(0.1, 0.7, 1.3), top_k=(0, 5), top_p=(0.6, 1.0), max_length=(16, 96)
) -> Summary:
    """Settings, effects and checkpoints shaped as ``summarize`` makes them; every setting has its own value."""
    trained = [("base", None), *((f"checkpoint-{step}", step) for step in steps)]
    rows = []
    for split, poems in (("validation", 30), ("test", 15)):
        for number, (name, step) in enumerate(trained):
            for place, knobs in enumerate(itertools.product(temperature, top_k, top_p, max_length)):
                row = {"checkpoint": name, "step": step, **dict(zip(COMMON_AXES, knobs, strict=True))}
                row |= {"no_repeat_ngram_size": 3, "split": split, "poems": poems, "samples": 8}
                rows.append(row | measured(0.2 + 0.1 * number + 0.003 * (place * 7 % 29)))
        for name, samples, bleu in (("random", 32, 0.4), ("reference", 1, 100.0)):
            row = {"checkpoint": name, "split": split, "poems": poems, "samples": samples, **measured(bleu)}
            rows.append(
                row | {f"{m}{e}": None for m in ("reference_nll", "complete") for e in ("", "_low", "_high")}
            )
    first = ["checkpoint", "step", *COMMON_AXES, "no_repeat_ngram_size", "split"]
    settings = pd.DataFrame(rows).reindex(columns=[*first, "poems", "samples", *MEASURES, "n_tokens"])
    settings = settings.astype(WHOLE | dict.fromkeys([*MEASURES, "n_tokens"], float)).copy()
    keys, numbers = ["checkpoint", "step", "split", "poems", "samples"], [*MEASURES, "n_tokens"]
    checkpoints = settings.groupby(keys, sort=False, dropna=False)[numbers].mean().reset_index()
    varied = [knob for knob in COMMON_AXES if settings[knob].nunique() > 1]
    effects = [checkpoints[checkpoints["checkpoint"].isin(["random", "reference"])]]
    for knob in varied:
        part = settings[settings[knob].notna()].astype({knob: float}).rename(columns={knob: "value"})
        part = part.groupby([*keys, "value"], sort=False, dropna=False)[numbers].mean().reset_index()
        effects.append(part.assign(knob=knob))
    columns = ["checkpoint", "step", "split", "knob", "value", "poems", "samples", *numbers]
    return Summary(
        settings, pd.concat(effects, ignore_index=True).reindex(columns=columns), checkpoints, NO_CURVE
    )


def write(summary: Summary, folder, by: str = "bleu", **options):
    return tables.write(summary, METRICS, folder, by=by, **options)


def read(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_nine_files_with_the_same_bytes_each_time(tmp_path):
    written = write(frames(), tmp_path / "one")
    write(frames(), tmp_path / "two")
    assert [path.name for path in written] == [
        f"{name}.{kind}"
        for name in ("checkpoints", "effects", "best_settings")
        for kind in ("csv", "md", "tex")
    ]
    assert read(tmp_path / "one") == read(tmp_path / "two")
    assert len(read(tmp_path / "one")) == 9


@pytest.mark.parametrize(("by", "lowest_first"), [("bleu", False), ("form", False), ("reference_nll", True)])
def test_best_settings_follow_the_metrics_own_direction(by, lowest_first):
    settings = frames().settings
    best = tables.best_settings(settings, by, METRICS)
    for split in ("validation", "test"):
        ranked = best[(best["split"] == split) & best["rank"].notna()]
        own = settings[(settings["split"] == split) & settings["temperature"].notna()]
        expected = sorted(own[by], reverse=not lowest_first)[:10]
        assert ranked["rank"].tolist() == list(range(1, 11))
        assert ranked[by].tolist() == expected


def test_floor_and_reference_stand_unranked_below_the_best_of_each_split():
    best = tables.best_settings(frames().settings, "bleu", METRICS)
    assert best["split"].tolist() == ["validation"] * 12 + ["test"] * 12
    for split in ("validation", "test"):
        last = best[best["split"] == split].tail(2)
        assert last["checkpoint"].tolist() == ["random", "reference"]
        assert last["rank"].isna().all()


def test_greedy_settings_that_are_one_text_take_one_place():
    settings = frames(steps=(50,), temperature=(0.0, 0.7)).settings
    settings.loc[settings["temperature"] == 0, "bleu"] = 3.0
    ranked = tables.best_settings(settings, "bleu", METRICS).query("split == 'test' and temperature == 0")
    assert sorted(zip(ranked["checkpoint"], ranked["max_length"], strict=True)) == [
        ("base", 16), ("base", 96), ("checkpoint-50", 16), ("checkpoint-50", 96),
    ]  # fmt: skip


def test_settings_without_a_value_are_not_ranked():
    settings = frames().settings
    settings.loc[settings["checkpoint"] == "checkpoint-200", "bleu"] = None
    assert "checkpoint-200" not in set(tables.best_settings(settings, "bleu", METRICS)["checkpoint"])


def test_an_unknown_metric_is_refused(tmp_path):
    with pytest.raises(KeyError, match="rouge"):
        write(frames(), tmp_path, by="rouge")


def test_markdown_shows_value_and_interval_and_leaves_what_is_missing_empty(tmp_path):
    made = frames()
    checkpoints = made.checkpoints
    row = checkpoints.index[(checkpoints["checkpoint"] == "base") & (checkpoints["split"] == "validation")][0]
    checkpoints.loc[row, ["bleu", "bleu_low", "bleu_high"]] = [0.4213, 0.3149, 0.5251]
    checkpoints.loc[row, ["reference_nll", "reference_nll_low", "reference_nll_high"]] = [5.12345, 5, 5.25]
    checkpoints.loc[row, ["form", "form_low", "form_high"]] = [0.5, None, None]
    write(made, tmp_path)
    text = (tmp_path / "checkpoints.md").read_text()
    base, random = (
        [cell.strip() for cell in line.split("|")]
        for name in ("base", "random")
        for line in text.splitlines()[:13]
        if line.startswith(f"| {name}")
    )
    assert "0.42 [0.31, 0.53]" in base
    assert base[base.index("5.123 [5.000, 5.250]") + 1] == "0.50 [–]"
    assert "" in random[3:-1]
    assert "nan" not in text.lower()
    assert "<na>" not in text.lower()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_rows_run_from_base_by_step_to_the_reference_with_the_given_split_first(tmp_path):
    made = frames(steps=(50, 200, 1000))
    write(replace(made, checkpoints=made.checkpoints.iloc[::-1]), tmp_path, split="test")
    table = pd.read_csv(tmp_path / "checkpoints.csv")
    names = ["base", "checkpoint-50", "checkpoint-200", "checkpoint-1000", "random", "reference"]
    assert table["checkpoint"].tolist() == names * 2
    assert table["split"].tolist() == ["test"] * 6 + ["validation"] * 6


def test_csv_keeps_every_metric_to_six_digits(tmp_path):
    made = frames()
    made.checkpoints["chrf"] = 1.23456789
    write(made, tmp_path)
    table = pd.read_csv(tmp_path / "checkpoints.csv", dtype=str)
    assert list(table.columns) == list(made.checkpoints.columns)
    assert set(table["chrf"]) == {"1.23457"}
    assert set(table["step"].dropna()) == {"50", "200"}


def test_effects_have_a_section_for_each_knob_and_split_with_floor_beside(tmp_path):
    write(frames(top_k=(50,)), tmp_path)
    text = (tmp_path / "effects.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("###")]
    assert len(headings) == 6
    assert headings[0] == (
        "### Effect of temperature on 30 validation examples with 8 samples each, averaged over the other knobs"
    )
    assert not any("top_k" in heading for heading in headings)
    assert text.count("| random ") == 6


def test_a_grid_of_one_setting_has_no_effects_to_show(tmp_path):
    write(frames(temperature=(0.7,), top_k=(50,), top_p=(0.9,), max_length=(96,)), tmp_path)
    assert "No knob" in (tmp_path / "effects.md").read_text()
    assert set(pd.read_csv(tmp_path / "effects.csv")["checkpoint"]) == {"random", "reference"}


@pytest.fixture
def written(tmp_path):
    """The files of tables with a name that would like to be markup."""
    made = frames()
    for frame in (made.settings, made.effects, made.checkpoints):
        frame["checkpoint"] = frame["checkpoint"].replace("checkpoint-50", r"[a]|b_c&50%{d}\e#$~^")
    return write(made, tmp_path)


def test_names_cannot_break_markdown_or_latex(written, tmp_path):
    assert r"\[a\]\|b_c\&50%{d}\\e\#\$\~^" in (tmp_path / "checkpoints.md").read_text()
    latex = (tmp_path / "checkpoints.tex").read_text()
    assert r"{[}a]|b\_c\&50\%\{d\}\textbackslash e\#\$\textasciitilde \textasciicircum " in latex
    assert r"reference\_nll" in latex
    assert "_" not in latex.replace(r"\_", "")


@pytest.mark.parametrize(
    "name",
    [
        "a|b\nc\x1b[31m",
        "**b** <b>x</b> [y](z)",
        "`a`",
        "_x_ my_run",
        "*",
        "\\",
        "$a$",
        "&lt;",
        "![a](b)",
        "# a",
    ],
)
def test_a_name_is_one_cell_of_its_row_whatever_it_holds(tmp_path, name):
    """What a Markdown renderer, markdown-it, shows of the cell is the name, and nothing else of it."""
    made = frames()
    for frame in (made.settings, made.effects, made.checkpoints):
        frame["checkpoint"] = frame["checkpoint"].replace("checkpoint-50", name)
    write(made, tmp_path)
    tokens = MarkdownIt("commonmark").enable("table").parse((tmp_path / "checkpoints.md").read_text())
    cells = [token.children or [] for token in tokens if token.type == "inline"]
    shown = [
        cell for cell in cells if "".join(part.content for part in cell) == " ".join(inert(name).split())
    ]
    assert len(shown) == 2  # a row a split
    assert {part.type for cell in shown for part in cell} <= {"text", "text_special"}
    rows = (tmp_path / "checkpoints.tex").read_text().split(r"\\" + "\n")
    assert not [row for row in rows if row.startswith(("*", "["))]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles_inside_a_document(written, tmp_path):
    inputs = "\n".join(rf"\input{{{path.stem}}}" for path in written if path.suffix == ".tex")
    document = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:]


def shown(table, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_the_terminal_shows_checkpoints_with_intervals_in_120_columns():
    text = shown(tables.rich_table(frames().checkpoints, "Checkpoints of [results]", METRICS))
    assert "Checkpoints of [results]" in text
    assert "…" not in text
    line = next(line for line in text.splitlines() if line.startswith("checkpoint-200"))
    assert line.split()[:5] == ["checkpoint-200", "validation", "0.44", "[0.34,", "0.54]"]


def test_at_80_columns_an_interval_stands_whole_under_its_value():
    text = shown(tables.rich_table(frames().checkpoints, "Checkpoints", METRICS, 80), 80)
    lines = text.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("checkpoint-200"))
    assert "[0.34, 0.54]" in lines[place + 1]
    assert all(line.count("[") == line.count("]") for line in lines)


def test_the_terminal_leaves_intervals_out_where_they_do_not_fit():
    best = tables.best_settings(frames().settings, "bleu", METRICS)
    text = shown(tables.rich_table(best, "Best", METRICS))
    assert "[" not in text
    assert "…" not in text
    assert "checkpoint-200" in text


def test_the_terminals_headings_are_told_in_chinese():
    with speaking("zh-TW"):
        text = shown(tables.rich_table(frames().checkpoints, "", METRICS))
    assert "檢查點" in text
    assert "checkpoint-200" in text


def test_the_terminal_leaves_out_a_metric_that_nothing_measured():
    checkpoints = frames().checkpoints
    checkpoints["reference_nll"] = None
    assert "nll" not in shown(tables.rich_table(checkpoints, "Checkpoints", METRICS))
