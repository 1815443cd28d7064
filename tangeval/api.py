"""Everything that tangeval does, one function a feature; the command line parses, calls these and prints.

    from tangeval import load_study, run
    results = run("studies/quickstart.yaml", "samples=2")
    results.checkpoints

In: study files and results folders. Out: files in the folder, and what was found, as frames and records.
Prints nothing. What is slow is imported where it is used.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval import engines, generation, steps, tasks
from tangeval.analysis.compare import compare as compare_items
from tangeval.analysis.compare import measure_all
from tangeval.analysis.external import Data, Scored, calibrate, data, score_files
from tangeval.analysis.families import Families
from tangeval.analysis.families import families as families_of
from tangeval.analysis.front import front as front_of
from tangeval.analysis.headroom import Headroom
from tangeval.analysis.headroom import headroom as headroom_of
from tangeval.analysis.planning import plan
from tangeval.analysis.select import check_selection
from tangeval.analysis.successive_halving import halve
from tangeval.analysis.task_check import Checked
from tangeval.analysis.task_check import check_task as checked
from tangeval.checks import Finding, checkpoints, machine, of_study
from tangeval.core.config import validated
from tangeval.core.errors import TangevalError
from tangeval.core.keeping import QUARANTINE, brought_back, check_links, listed
from tangeval.core.libraries import needs, quieten
from tangeval.core.types import check_split
from tangeval.doors.hw5 import homework, study_name, texts_in
from tangeval.engines.base import needs_logits
from tangeval.explain import subject as subjects
from tangeval.export.folder import Exported, export
from tangeval.generation import Pending
from tangeval.judge.asking import Asking, Judge, PairPrompt, Prompt, load_prompt
from tangeval.judge.coherence import LocalJudge, measure
from tangeval.judge.grading import Graded, Wanted, grade
from tangeval.judge.pairwise import Paired, compare_pairs
from tangeval.models.checkpoints import identity, resolve_base
from tangeval.models.tokens import encode_completion, encode_prompt
from tangeval.reporting.notebook import Results
from tangeval.reporting.sharing import check_tracker, log, score_class, write_card, write_slides
from tangeval.resolve import ResolvedStudy
from tangeval.results import explained, remote
from tangeval.results.files import exclusive_lock, write_text
from tangeval.results.folder import RunFolder
from tangeval.results.plan import check_data
from tangeval.results.plan import repair as rebuilt
from tangeval.results.remote import break_lock as unlock
from tangeval.steps import AnyStudy, Options, Watch, load_results
from tangeval.tasks.tang.data import fetch

__all__ = [
    "Data", "Exported", "Options", "Results", "Scored", "Watch", "calibrate", "check_task", "check_tracker", "checkpoints", "coherence", "compare", "data", "doctor", "dry_run", "explain", "export", "families", "fetch", "front", "generate",
    "halving", "headroom", "homework", "judge", "judge_prompt", "load_results", "log", "plan", "repair", "report", "run", "score_class", "score_files", "select", "study_name", "summarize", "texts_in", "unlock", "verdict", "write_card", "write_slides",
]  # fmt: skip


def run(study: AnyStudy, *overrides: str, options: Options = Options(), watch: Watch = Watch()) -> Results:
    """Decode what the folder lacks, score, summarise, draw and select; return the results."""
    resolved = steps.resolved(study, overrides, options)
    steps.check(resolved, options)
    with remote.at(steps.place(resolved, options)) as (folder, send):
        steps.decode(resolved, folder, options, send, watch)
        results = Results(folder, resolved.study)
        steps.evaluate(results, watch)
        if resolved.study.select:
            steps.select(results)
        steps.conclude(results)
        return steps.with_page(steps.explained(resolved, results, options, watch), watch)


def generate(
    study: AnyStudy, *overrides: str, options: Options = Options(), watch: Watch = Watch()
) -> Results:
    """Decode the generations and likelihoods that the folder lacks; return the results, not scored yet."""
    resolved = steps.resolved(study, overrides, options)
    with remote.at(steps.place(resolved, options)) as (folder, send):
        steps.decode(resolved, folder, options, send, watch)
        return Results(folder, resolved.study)


def dry_run(
    study: AnyStudy, *overrides: str, options: Options = Options()
) -> tuple[ResolvedStudy, Pending, str]:
    """Return what ``run`` would decode, and what that takes, in words; nothing is written."""
    resolved = steps.resolved(study, overrides, options)
    steps.check(resolved, options)
    place = steps.place(resolved, options)
    with (
        remote.copied(place) if remote.is_url(place) else nullcontext(Path(place)) as folder,
        engines.make(resolved, on=options.on, gpus=options.gpus) as engine,
    ):
        pending = generation.pending(resolved, folder, engine, overwrite=True)
        return (
            resolved,
            pending,
            generation.estimate(folder, engine, pending.waiting, resolved.base_fingerprint),
        )


def repair(place: str | Path) -> tuple[int, list[Path]]:
    """Make plan and checksums of a results folder anew of its batch files; return how many hold, and those left alone.

    A folder in ``quarantine/`` is first brought back to where it was; so is that of a fine-tuning, which has no plan.
    """
    root, aside, name = str(place).rstrip("/").rpartition(f"/{QUARANTINE}/")
    with remote.at(root if aside else str(place)) as (folder, _):
        if aside:
            brought_back(name, folder)
        if not listed(folder, RunFolder(folder).generations.name):
            if not aside:
                raise TangevalError(
                    f"{place} holds no generations; give a results folder, or one in {QUARANTINE}/"
                )
            return 0, []
        batches, left = rebuilt(RunFolder(folder))
        return len(batches), left


def summarize(place: str | Path, *, watch: Watch = Watch()) -> Results:
    """Score, summarise and draw what a results folder holds; return the results."""
    results = load_results(place)
    with exclusive_lock(results.folder):
        steps.evaluate(results, watch)
        steps.conclude(results)
        return steps.with_page(results, watch)


def select(
    place: str | Path,
    *,
    within: Mapping[str, float] | None = None,
    prefer: str | None = None,
    assume_unseen: bool = False,
    watch: Watch = Watch(),
) -> Results:
    """Choose the best checkpoint and setting of a results folder, and write ``best/``; return the results.

    ``within`` (metric → margin) and ``prefer`` take the place of the study's ``select.within`` and ``select.prefer``.
    """
    results = load_results(place)
    if within or prefer:
        results = steps.with_margins(results, within or {}, prefer)
    if results.study.select:
        seen = {record["name"]: record["seen"] for record in results.run.manifest["checkpoints"]}
        check_selection(results.study.select, results.task.metrics, seen, assume_unseen=assume_unseen)
    with exclusive_lock(results.folder):
        steps.select(results)
        steps.conclude(results)
        # A page that is there would still show the old choice.
        return steps.with_page(results, watch) if results.page.is_file() else results


def verdict(place: str | Path) -> Results:
    """Write ``verdict.json`` and ``best/verdict.md`` of a results folder; return the results, whose ``verdict`` it is."""
    with exclusive_lock((results := load_results(place)).folder):
        steps.conclude(results)
        return results


def report(*places: str | Path, out: str | Path | None = None, watch: Watch = Watch()) -> tuple[Path, str]:
    """Write the page of a results folder, or one of several, to ``out``; return the file, and what is in it."""
    return steps.page(*map(load_results, places), watch=watch, out=Path(out) if out else None)


def halving(
    study: AnyStudy, *overrides: str, options: Options = Options(), watch: Watch = Watch()
) -> tuple[dict[str, Any], Path]:
    """Choose the best setting by successive halving; return what ``halving.json`` says, and its folder."""
    resolved = steps.resolved(study, overrides, options)
    needs_logits(resolved, "halving")
    steps.check(resolved, options)
    folder = Path(options.out or Path("results") / f"{resolved.study.name}-halving")
    with exclusive_lock(folder):
        return halve(resolved, folder, watch.decoding), folder


def compare(
    *items: str, metrics: Sequence[str] = (), split: str = "validation",
    effects: Mapping[str, float] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return the paired differences of ``FOLDER[:CHECKPOINT[:KNOBS]]`` items, a row for each pair and metric.

    With ``effects`` (metric → size) the table says how many examples would show a difference of that size.
    """
    return compare_items(measure_all(items, split), metrics, effects)


def front(
    place: str | Path, metrics: Sequence[str], *, split: str = "validation", checkpoint: str | None = None
) -> tuple[pd.DataFrame, Results]:
    """Return the settings that none beats in all ``metrics``, and those shown to be beaten; written and drawn too.

    Of one checkpoint (default: the chosen one), or of "all"; columns as in docs/results.md.
    """
    from tangeval.reporting import figures

    results, names = load_results(place), list(dict.fromkeys(metrics))
    with exclusive_lock(results.folder):
        frame = front_of(results.run, names, split, checkpoint)
        figures.draw_front(frame, [results.run.metrics[name] for name in names], results.run.figures)
        return frame, steps.with_page(results, Watch()) if results.page.is_file() else results


def judge_prompt(place: str | Path, kind: type[Prompt], file: Path | None = None) -> Prompt:
    """Return what a judge of a results folder is told: a file's, else the task's, else the homework's."""
    task = load_results(place).task
    if file or not task.digest:
        return load_prompt(kind, file)
    if task.judge is None or kind.__name__ not in task.judge:
        raise TangevalError(f"task {task.name} says nothing to a judge; give --prompt, or judge in the task")
    return validated(kind, dict(task.judge[kind.__name__]), f"task {task.name}", "judge")


def headroom(
    place: str | Path, *, split: str = "validation", checkpoint: str | None = None, likelihood: bool = False,
    watch: Watch = Watch(),
) -> tuple[Headroom, Results]:  # fmt: skip
    """Return what the samples of one checkpoint (default: the chosen one), or of "all", know: best of k, reranking, oracle.

    ``likelihood`` loads the model, and picks by it too. Written and drawn; columns as in docs/results.md."""
    from tangeval.reporting import sampling

    results = load_results(place)
    with exclusive_lock(results.folder):
        with watch.working("looking at all samples"):
            nats = steps.nats(results, likelihood)
            found = headroom_of(results.study, results.run, split, checkpoint, nats)
        sampling.write_headroom(found, results.run.metrics, results.run, steps.ranked_by(results))
        return found, steps.with_page(results, watch) if results.page.is_file() else results


def families(
    place: str | Path, metrics: Sequence[str], *, split: str = "validation", checkpoint: str | None = None,
    budget: int | None = None,
) -> tuple[Families, Results]:  # fmt: skip
    """Return how families of samplers (by which knob is on) compare at an equal ``budget`` of settings tried.

    Of one checkpoint (default: the chosen one); written and drawn too; columns as in docs/results.md.
    """
    from tangeval.reporting import sampling

    results = load_results(place)
    with exclusive_lock(results.folder):
        found = families_of(results.run, list(dict.fromkeys(metrics)), split, checkpoint, budget)
        sampling.write_families(found, results.run.metrics, results.run)
        return found, steps.with_page(results, Watch()) if results.page.is_file() else results


def judge(
    place: str | Path, judge: Judge, wanted: Wanted, *, limit: int = 500, parallel: int = 8,
    watch: Watch = Watch(),
) -> Graded | Paired:  # fmt: skip
    """Let a language model grade outputs, or compare pairs where its prompt is a ``PairPrompt``.

    With at most ``limit`` calls, ``parallel`` of them in flight.
    """
    results = load_results(place)
    check_data(results.dataset, results.run)
    make: Callable[..., Graded | Paired] = compare_pairs if isinstance(judge.prompt, PairPrompt) else grade
    with exclusive_lock(results.folder), watch.counting(f"asking {judge.host}") as on_answer:
        return make(results.run, results.dataset, judge, wanted, Asking(limit, parallel, on_answer))


def coherence(
    place: str | Path, wanted: Wanted, *, by: str = "tang-mini", watch: Watch = Watch()
) -> pd.DataFrame:
    """Return by how much outputs follow their own input better than others, by the base model ``by``, a row an output."""
    quieten()
    results, base = load_results(place), resolve_base(by)
    with needs("coherence"):
        from tangeval.engines.likelihood import scorer
    with exclusive_lock(results.folder), watch.counting(f"asking {by}") as on_done:
        local = LocalJudge(by, identity(base), scorer(base))
        return measure(results.run, results.dataset, wanted, local, on_done)


def explain(
    study: AnyStudy, *overrides: str, asked: subjects.Asked, step: int | None = None,
    options: Options = Options(), watch: Watch = Watch(),
) -> tuple[subjects.Subject, explained.Explained, Path]:  # fmt: skip
    """Run one checkpoint on one example; return what was asked for, what ``explain.json`` says, and its folder.

    ``step`` is the token to begin with, from 1 (default: the first character); ``options.out`` the folder
    (default ``results/NAME/explain/ID``; of a results folder's own study that folder's). The study's page is written again where there is one, else a page of this text.
    """
    check_split(asked.split)
    resolved = steps.resolved(study, overrides, options)
    needs_logits(resolved, "explain")
    with needs("explaining"):
        from tangeval.explain import trace
    folder = steps.results_of(resolved.study)
    check_links(folder)
    subject = subjects.find(resolved, folder, asked)
    with watch.working(f"running {subject.checkpoint.name} on {subject.example.id}"):
        content = trace.explain(resolved, subject, step)
    run = RunFolder(folder)
    out = Path(options.out or run.explain / subject.example.id)
    write_text(out / explained.FILE, content.as_json())
    if out.parent == run.explain and run.page.is_file():  # it shows what is explained
        report(folder, watch=watch)
    else:
        from tangeval.reporting.page import build

        build.write_explained([out / explained.FILE], out / run.page.name)
    return subject, content, out


def check_task(task: str, base_model: str = "tang-mini", template: str | None = None) -> Checked:
    """Return what a task asks, compares and checks, on its own references, with a base model's tokenizer."""
    quieten()
    with needs("token ids"):
        from tangeval.models.loading import load_tokenizer
    made, tokenizer = tasks.load(task), load_tokenizer(resolve_base(base_model))
    encode, answer = partial(encode_prompt, tokenizer), partial(encode_completion, tokenizer)
    return checked(made, data("sample", task=task), template or made.templates[0], encode, answer)


def doctor(study: AnyStudy | None = None, *overrides: str, options: Options = Options()) -> list[Finding]:
    """Return what this machine has for evaluating, and what ``run`` would find of a study before it decodes."""
    return [*machine(), *([] if study is None else of_study(study, overrides, options))]
