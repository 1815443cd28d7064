"""What the commands print of what there is: data, checkpoints, findings, and what a run would decode.

In: the records of ``api``. Out: lines and tables on the console.
"""

from collections.abc import Sequence

from tangeval.api import Data
from tangeval.checks import Finding
from tangeval.cli.render import say, show_table
from tangeval.core.types import SPLITS, Checkpoint
from tangeval.core.words import say as told
from tangeval.generation import Pending
from tangeval.models.adapter_base import trained_from
from tangeval.models.checkpoints import Skipped
from tangeval.resolve import ResolvedStudy


def show_dry_run(resolved: ResolvedStudy, pending: Pending, takes: str, out: str | None) -> None:
    """What a run would decode, where to, and what that takes."""
    rows = []
    for checkpoint in resolved.checkpoints:
        own = [batch for batch in pending.waiting if batch.checkpoint == checkpoint.name]
        counts = (len(own), sum(b.sequences() for b in own), sum(b.outputs() for b in own))
        named = (checkpoint.name, str(checkpoint.step or ""), checkpoint.kind)
        rows.append((*named, *(f"{n:,}" for n in counts)))
    settings = len(resolved.study.decoding.settings())
    folder = out or f"results/{resolved.study.name}"
    columns = [
        told(f"table.{name}") for name in ("checkpoint", "step", "kind", "batches", "sequences", "outputs")
    ]
    show_table(
        told("dry.title", study=resolved.study.name, settings=settings, folder=folder), columns, rows, right=3
    )
    say(told("dry.base", name=resolved.base.name))
    _show_bases(resolved.checkpoints)
    say(takes)


def show_data(spec: str, found: Data) -> None:
    """Splits, copies and leaks of a data set."""
    counts = ", ".join(f"{split} {len(found.dataset.split(split))}" for split in SPLITS)
    say(f"{spec} in {found.dataset.folder}: {counts}", "bold")
    first = f", such as {', '.join(found.duplicates[0])}" if found.duplicates else ""
    say(f"  texts that stand there more than once: {len(found.duplicates)}{first}")
    for split, leaks in found.leaks.items():
        shared = "; ".join(f"{name}: {' '.join(parts)}" for name, parts in leaks.items())
        more = f" ({shared})" if shared else ""
        say(f"  {split}: texts that share a part with training: {len(leaks)}{more}")


def show_checkpoints(
    folder: str, found: Sequence[tuple[Checkpoint, int | None]], skipped: Sequence[Skipped]
) -> None:
    """The checkpoints of a folder, what they were trained on, and what was left out."""
    rows = []
    for checkpoint, texts in found:
        trained = "no record" if texts is None else f"{texts} texts"
        rows.append((checkpoint.name, str(checkpoint.step or ""), str(checkpoint.kind), trained))
    rows += [(left_out.path.name, "", "left out", left_out.reason) for left_out in skipped]
    show_table(folder, ("checkpoint", "step", "kind", "fine-tuned on"), rows)
    _show_bases([checkpoint for checkpoint, _ in found])


def _show_bases(found: Sequence[Checkpoint]) -> None:
    """The models that adapters say they were trained on."""
    adapters = [checkpoint for checkpoint in found if checkpoint.kind == "adapter"]
    named = [trained_from(checkpoint) or told("dry.unnamed") for checkpoint in adapters]
    if named:
        say(told("dry.adapters", names=", ".join(dict.fromkeys(named))))


def show_findings(found: Sequence[Finding]) -> None:
    """A line for each: green what is well, red what is not, with the remedy, and plain what is a fact."""
    signs = {True: ("ok", "green"), False: ("NO", "red"), None: ("--", None)}
    for each in found:
        sign, style = signs[each.ok]
        say(f"{sign} {each.part}: {each.said}{f'; {each.remedy}' if each.remedy else ''}", style)
