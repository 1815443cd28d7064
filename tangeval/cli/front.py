"""``front``: several metrics at once, from files, without torch."""

from typing import Annotated, Any

from typer import Option

from tangeval.cli.base import Place, Split, api, command, render
from tangeval.core.knobs import CUTS, KNOB, axes_in


@command("front")
def front(
    place: Place,
    metric: Annotated[list[str], Option(help="A metric, which is a mean over poems; two at least.")],
    split: Split = "validation",
    checkpoint: Annotated[str | None, Option(help="Its name, or all (default: the chosen one).")] = None,
) -> None:
    """Several metrics at once: the settings that none beats in all, and those shown to be beaten; writes front.csv."""
    frame, results = api.front(place, metric, split=split, checkpoint=checkpoint)
    _show(frame, list(dict.fromkeys(metric)))
    picture = results.run.figures / f"front_{split}.png"
    render.say(f"every setting: {results.run.table('front')}; picture: {picture}")
    if results.note:
        render.show_page(results.page, results.note)


def _show(frame: Any, metrics: list[str]) -> None:
    """The front, how many cannot be told from it, and how many are shown to be dominated."""
    best = frame[frame["on_front"] == 1]
    # At temperature 0 the cuts change nothing: one of those settings stands for all.
    twins = best.duplicated(["checkpoint", *(knob for knob in axes_in(frame) if knob not in CUTS)])
    knobs = [knob for knob in axes_in(frame) if frame[knob].nunique() > 1]
    several = ["checkpoint"] * (frame["checkpoint"].nunique() > 1)
    rows = []
    for row in best[~(twins & best["temperature"].eq(0))].to_dict("records"):
        spelt = (KNOB[knob].spell(row[knob]) for knob in knobs)
        rows.append(
            (*(row[name] for name in several), *spelt, *(render.interval(row, m, 3) for m in metrics))
        )
    alone, split = "" if several else f"{frame['checkpoint'].iloc[0]}: ", frame["split"].iloc[0]
    title = f"{alone}settings that none beats in {' and '.join(metrics)}, on {split}"
    render.show_table(title, (*several, *knobs, *metrics), rows, right=len(metrics) + len(knobs))
    shown = int(frame["dominated_by"].notna().sum())
    render.say(
        f"{len(best)} of {len(frame)} settings are on the front; {len(frame) - len(best) - shown} others cannot be told "
        f"from it; {shown} shown to be worse in every metric than one on it (5 % level for all of them together)"
    )
