"""The page of a run that goes on: what is whole so far, and how far it is; it reloads itself.

In: a results folder that is being written, its study and data. Out: ``report.html``, written anew after a batch, at most
every ``EVERY`` seconds and for ``SHARE`` of the time at most. What it shows is scored and summarised as ever, in a
folder of its own, of the checkpoints whose batches are all there: no number of it changes later, but no verdict and
no choice is on it. Knows nothing of how texts are made.
"""

import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from tangeval import tasks
from tangeval.analysis import scoring, summarize
from tangeval.core.keeping import present
from tangeval.core.knobs import WIDE
from tangeval.core.study import Study
from tangeval.reporting.page import build, schema
from tangeval.reporting.page.packing import packed
from tangeval.reporting.page.texts import Corpus, Texts, parts
from tangeval.results.files import read_parquet, write_json, write_text
from tangeval.results.folder import RunFolder
from tangeval.results.plan import Batch, read_plan, write_plan
from tangeval.tasks.base import Dataset

#: Seconds from one writing to the next at least, which the page waits too before it reloads; share of the time.
EVERY, SHARE = 15.0, 0.04


class Live:
    """A context around a decoding: called after each batch, it writes the page where that is due."""

    def __init__(self, study: Study, data: Dataset, folder: Path) -> None:
        self.study, self.data, self.run = study, data, RunFolder(folder)
        self.due = 0.0
        self.shown: tuple[str, ...] = ()
        self.render: Callable[[schema.Live], str] = self._nothing_yet

    def __enter__(self) -> "Live":
        self._place = TemporaryDirectory(prefix="tangeval-live-")
        self.partial = RunFolder(Path(self._place.name))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind and present(self.run.manifest_file):
            self._write(self._waiting(), going=False)
        self._place.cleanup()

    def __call__(self) -> None:
        if time.monotonic() < self.due:
            return
        began, waiting = time.monotonic(), self._waiting()
        names = [each["name"] for each in self.run.manifest["checkpoints"]]
        whole = tuple(name for name in names if name not in {batch.checkpoint for batch in waiting})
        if whole != self.shown:
            self.render, self.shown = self._of(whole), whole
        self._write(waiting, going=True)
        now = time.monotonic()
        self.due = now + max(EVERY, (now - began) / SHARE)

    def _waiting(self) -> list[Batch]:
        return [batch for batch in read_plan(self.run) if not present(self.run.batch_file(batch.id))]

    def _write(self, waiting: list[Batch], *, going: bool) -> None:
        batches = len(read_plan(self.run))
        live = schema.Live(
            done=batches - len(waiting), batches=batches, written=datetime.now().strftime("%H:%M:%S"),
            waiting=list(dict.fromkeys(batch.checkpoint for batch in waiting)), every=EVERY if going else None,
        )  # fmt: skip
        write_text(self.run.page, self.render(live))

    def _nothing_yet(self, live: schema.Live) -> str:
        facts = {"study": self.study.name, "knobs": [], "carries": ["live"], "live": live}
        return build.rendered(facts, {}, build.Taken(), Texts())

    def _of(self, whole: tuple[str, ...]) -> Callable[[schema.Live], str]:
        """Score and summarise these checkpoints; return what makes the page of them."""
        if not whole:
            return self._nothing_yet
        own = [batch for batch in read_plan(self.run) if batch.checkpoint in whole]
        partial, manifest = self.partial, self.run.manifest
        partial.generations.mkdir(exist_ok=True)
        for batch in own:
            if not present(partial.batch_file(batch.id)):
                shutil.copyfile(self.run.batch_file(batch.id), partial.batch_file(batch.id))
        write_plan(partial, own, self.study.decoding.wide(WIDE))
        kept = [each for each in manifest["checkpoints"] if each["name"] in whole]
        write_json(partial.manifest_file, manifest | {"checkpoints": kept})
        write_text(partial.study_file, self.study.to_yaml())
        if present(self.run.likelihood_file):
            frame = read_parquet(self.run.likelihood_file)
            partial.write_likelihood(frame[frame["checkpoint"].isin(whole)])
        partial.tidy_checksums(partial.batch_files())
        scoring.score(self.study, self.data, partial.path)
        summarize.summarize(partial)
        corpus = Corpus(self.study, self.data, tasks.load(self.study.task), partial)
        csv = {name: packed(partial.csv_bytes(partial.table(name))) for name in build.NEEDED}
        facts = build.facts_of(corpus)
        facts["carries"] += [*csv, "texts", "live", *["note"] * bool(facts["note"])]
        first = schema.Live(done=0, batches=0, written="", waiting=[], every=None)
        _, texts = build.whole(facts | {"live": first}, csv, build.Taken(), corpus, parts(corpus))
        return lambda live: build.rendered(facts | {"live": live}, csv, build.Taken(), texts, corpus)
