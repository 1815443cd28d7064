"""``headroom`` and ``families``: what samples and settings already know, from files, without torch."""

from typing import Annotated, Any

from typer import Option

from tangeval.cli.base import Place, Split, api, command, console, render
from tangeval.cli.progress import watch


@command("headroom")
def headroom(
    place: Place,
    split: Split = "validation",
    checkpoint: Annotated[str | None, Option(help="Its name, or all (default: the chosen one).")] = None,
    likelihood: Annotated[
        bool, Option("--likelihood", help="Load the model, and pick the likeliest sample too.")
    ] = False,
) -> None:
    """Without decoding: the best of k samples, reranking, and what a setting for each poem could win."""
    found, results = api.headroom(
        place, split=split, checkpoint=checkpoint, likelihood=likelihood, watch=watch(console)
    )
    metrics = results.run.metrics
    shown = [m.name for m in metrics.values() if m.headline and m.name in found.reranked]
    titles = {
        "k": "The best of k samples",
        "rerank": "One of each example's samples picked; none: their mean",
    }
    for key, frame in (("k", found.best_of), ("rerank", found.reranked)):
        names = [name for name in shown if name in frame and frame[name].notna().any()]
        means = frame.groupby(key, sort=False)[names].mean()
        # Metrics are many, so each has a line.
        rows = [(name, *(f"{value:.3f}" for value in means[name])) for name in names]
        columns = ("metric", *(f"k = {how}" if key == "k" else str(how) for how in means.index))
        title = f"{titles[key]}, on {split}"
        render.show_table(title, columns, rows, right=len(means))
    for name, own in found.oracle[found.oracle["metric"].isin(shown)].groupby("checkpoint", sort=False):
        rows = [
            (row["metric"], f"{row['single']:.3f}", f"{row['adaptive']:.3f}", render.interval(row, "room", 3),
             f"{row['with_luck']:.3f}")
            for row in own.to_dict("records")
        ]  # fmt: skip
        columns = ("metric", "best single", "adaptive", "room", "with luck")
        render.show_table(f"{name}: the best setting for each example, on {split}", columns, rows, right=4)
    render.say(
        "Values are means over settings. Room: each example's setting was chosen on half of its samples and scored on the other half; with luck: on the same. "
        f"All of it: {results.run.table('best_of')}, reranked.csv, oracle.csv; picture: "
        f"{results.run.figures / f'best_of_{split}.png'}"
    )


@command("families")
def families(
    place: Place,
    metric: Annotated[list[str], Option(help="A metric to compare by; again for more.")],
    split: Split = "validation",
    checkpoint: Annotated[str | None, Option(help="Its name (default: the chosen one).")] = None,
    budget: Annotated[
        int | None, Option(help="Settings that each family tries (default: as many as the smallest has).")
    ] = None,
) -> None:
    """Samplers against each other: the best of as many settings of each family, the winner's luck taken out."""
    found, results = api.families(place, metric, split=split, checkpoint=checkpoint, budget=budget)
    values, names, apart = found.values, list(dict.fromkeys(metric)), found.differences
    tried = int(apart["budget"].iloc[0])
    own = values[(values["by"] == "budget") & (values["at"] == tried)]
    for name in names:
        rows = [(row["family"], str(row["settings"]), *_values(row, name)) for row in own.to_dict("records")]
        title = f"{own['checkpoint'].iloc[0]}: {name} of the best of {tried} settings, on {split}"
        render.show_table(title, ("family", "settings", name, "with luck"), rows, right=3)
        render.say(_verdict(own, apart[apart["metric"] == name], name, results.run.metrics[name].better))
    render.say(
        f"{len(apart)} comparisons, tested together on the same resamples of the examples (max-T, 5 % level): "
        f"{results.run.table('family_differences')}; picture: {results.run.figures / f'families_{split}.png'}"
    )


def _values(row: Any, name: str) -> tuple[str, str]:
    return render.interval(row, name, 3), f"{row[f'{name}_naive']:.3f}"


def _verdict(own: Any, apart: Any, name: str, better: str) -> str:
    """Which family is best by a metric, and which are shown to be worse."""
    from tangeval.analysis.hypothesis_tests import ERROR

    best = own.sort_values(name, ascending=better == "low")["family"].iloc[0]
    beside = apart[apart["a"] == best]
    worse = beside.loc[beside["p_adjusted"] <= ERROR, "b"]
    rest = beside.loc[~beside["b"].isin(worse), "b"]
    told = f", shown to be better than {', '.join(worse)}" if len(worse) else ""
    return f"{name}: {best} is ahead{told}" + (
        f"; it cannot be told from {', '.join(rest)}" if len(rest) else ""
    )
