"""One results folder of a training, in which each evaluated step is a checkpoint.

In: a study, the folder of the training, and the model as it is at a step. Out: generations and likelihoods of that step
in ``study/``, and what was measured. The folder is one as `tangeval run` writes it: what reads those reads this. Knows
nothing of trainers.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tangeval import generation, steps, tasks
from tangeval.analysis import scoring
from tangeval.analysis.aggregate import Part, groups
from tangeval.analysis.select import check_metrics, check_selection
from tangeval.analysis.summarize import overall
from tangeval.core.errors import TangevalError
from tangeval.core.keeping import present
from tangeval.core.study import LoadSection, Study, load_study
from tangeval.core.types import ASSETS, BASE, Base, Checkpoint
from tangeval.decoding.shared_prefix import bare
from tangeval.engines.live import LiveEngine, digest_of, lent
from tangeval.engines.local import check_study
from tangeval.models.checkpoints import shipped, trained_on
from tangeval.reporting.notebook import Results
from tangeval.reporting.tables import headline
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import exclusive_lock
from tangeval.results.folder import RunFolder
from tangeval.results.plan import read_plan
from tangeval.steps import AnyStudy, Watch

#: The folder of the results, in that of the training.
FOLDER = "study"


@dataclass(frozen=True)
class Measured:
    """What was measured of a checkpoint: ``values`` by name, with ``_low`` and ``_high``; each metric by example.

    Where the study has several splits a name begins with its split. ``scores`` are of the first split.
    """

    checkpoint: Checkpoint
    values: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]]


class Evaluations:
    """The evaluations of one training."""

    def __init__(self, study: AnyStudy) -> None:
        """Take a study; what it says of weights (``base_model``, ``checkpoints``) is for later runs of it.

        Raises:
            TangevalError: naming the key that cannot be, and the remedy; the data are not there.
        """
        self.study = study if isinstance(study, Study) else load_study(study)
        self.folder, self.done = Path(), tuple[Checkpoint, ...]()
        check(self.study)
        self.task = tasks.load(self.study.task)
        self.dataset = self.task.load(self.study.data_name, self.study.validation_size)
        if self.study.select:
            check_metrics(self.study.select, self.task.metrics)
        steps.check(self._resolved(None, (), select=None), steps.Options())

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / FOLDER)

    def begin(self, folder: Path, step: int) -> list[Measured]:
        """Take the training's ``folder``, and what an earlier process evaluated of it up to ``step``; return that."""
        self.folder = folder
        manifest = self.run.read_json(self.run.manifest_file) if step else None
        self.done = tuple(
            Checkpoint(each["name"], each["step"], folder / each["name"] if each["path"] else None, each["kind"], digest=each["fingerprint"])
            for each in (manifest or {}).get("checkpoints", ())
            if (each["step"] is None or each["step"] <= step) and self._is_whole(each["name"])
        )  # fmt: skip
        return [self.measured(checkpoint) for checkpoint in self.done]

    def _is_whole(self, name: str) -> bool:
        """Whether a checkpoint's texts and likelihoods are all there: a training may have been cut off in their midst."""
        batches = [batch for batch in read_plan(self.run) if batch.checkpoint == name]
        likelihood = self.run.likelihood()
        known = {*likelihood["example_id"][likelihood["checkpoint"] == name]}
        return all(
            present(self.run.batch_file(batch.id)) and known.issuperset(batch.examples) for batch in batches
        )

    def check(self, model: Any, tokenizer: Any) -> None:
        """Refuse a study that this model, its context or its tokenizer does not suit."""
        if self._merges(model) and getattr(bare(model), "is_quantized", False):
            raise TangevalError(
                f"{self.study.file}: load.merge: the model is quantised, and merged it would be another; leave merge out"
            )
        active = getattr(getattr(model, "base_model", None), "active_adapters", None)
        if isinstance(active, list) and active != ["default"]:
            raise TangevalError(
                f"evaluating while training: of a saved checkpoint the adapter named default is read, and {', '.join(active)} "
                "would write the texts; train that one alone (get_peft_model without adapter_name)"
            )
        resolved = self._resolved(model, (self._checkpoint(model, None),))
        check_study(resolved, tokenizer, model.config)

    def evaluate(self, model: Any, tokenizer: Any, step: int | None) -> Measured:
        """Decode and measure the model as it is at ``step``; None is before the first, which results call ``base``.

        Raises:
            TangevalError: it cannot be decoded with, or files cannot be written. Libraries raise their own errors.
        """
        newest = self._checkpoint(model, step)
        known = tuple(each for each in self.done if each.name != newest.name)
        resolved = self._resolved(model, (*known, newest))
        with exclusive_lock(self.run.path):
            with (
                lent(model, merge=self._merges(model), bare=step is None) as whole,
                LiveEngine(resolved, whole, tokenizer, newest) as engine,
            ):
                lost = generation.decode(resolved, self.run.path, keep_going=True, engine=engine)
            gone = {each.path: each.reason for each in lost}
            if (place := resolved.place(newest)) in gone:
                raise TangevalError(gone[place])
            self.done = tuple(each for each in resolved.checkpoints if resolved.place(each) not in gone)
            return self.measured(newest)

    def measured(self, checkpoint: Checkpoint) -> Measured:
        """Return what the folder's generations and likelihoods of a checkpoint measure."""
        rows = scoring.read_generations(self.run.study, self.run.path, None, checkpoint.name)
        likelihood = self.run.likelihood()
        own = likelihood[likelihood["checkpoint"] == checkpoint.name]
        found = list(groups(scoring.score_texts(rows, self.task, self.dataset), own, self.task.metrics))
        values: dict[str, float] = {}
        for row in overall(found).to_dict("records"):
            prefix = f"{row['split']}_" if len(found) > 1 else ""
            names = [f"{name}{end}" for name in headline(self.task.metrics) for end in ("", "_low", "_high")]
            values |= {f"{prefix}{name}": float(row[name]) for name in names}
        first = found[0].measured
        whole, clusters = Part(first, range(len(first.knobs))), map(str, range(first.poems))
        examples = list(clusters if first.clusters else first.examples)
        by_example = {name: whole.by_poem(name).tolist() for name in self.task.metrics}
        scores = {name: dict(zip(examples, own, strict=True)) for name, own in by_example.items()}
        return Measured(checkpoint, values, scores)

    def write_page(self, model: Any, tokenizer: Any) -> Path:
        """Score and summarise all steps, and write the page; `tangeval summarize` draws pictures too, which takes longer."""
        resolved = self._resolved(model, self.done)
        with exclusive_lock(self.run.path):
            # What failed last is no part of the record.
            with LiveEngine(resolved, model, tokenizer) as engine:
                generation.decode(resolved, self.run.path, keep_going=True, engine=engine)
            results = Results(self.run.path)
            steps.evaluate(results, Watch(), draw=False)
            self._choose(results)
            steps.conclude(results)
            return steps.page(results, watch=Watch())[0]

    def _choose(self, results: Results) -> None:
        """Make the study's choice; without records of what was trained on, say how it is made."""
        if rule := results.study.select:
            seen = {each["name"]: each["seen"] for each in self.run.manifest["checkpoints"]}
            try:
                check_selection(rule, self.task.metrics, seen, assume_unseen=False)
            except TangevalError as error:
                said = f"nothing is chosen at the end of training; `tangeval select {self.run.path}` chooses: {error}"
                warnings.warn(said, stacklevel=2)
            else:
                steps.select(results)

    def _checkpoint(self, model: Any, step: int | None) -> Checkpoint:
        if step is None:
            return Checkpoint(BASE, None, None, "base", digest=digest_of(model))
        name = f"checkpoint-{step}"
        kind: Literal["adapter", "full"] = "adapter" if hasattr(model, "peft_config") else "full"
        return Checkpoint(name, step, self.folder / name, kind, digest=digest_of(model))

    def _merges(self, model: Any) -> bool:
        return self.study.load.merge and hasattr(model, "peft_config")

    def _resolved(self, model: Any, checkpoints: tuple[Checkpoint, ...], **changes: Any) -> ResolvedStudy:
        """The study of these checkpoints; its file names the training's folder, so that `tangeval run` takes what was saved."""
        names = {each.name for each in checkpoints}
        if "base_model" not in self.study.model_fields_set:
            changes["base_model"] = _name(model)
        if "select" not in self.study.model_fields_set and not all(map(trained_on, checkpoints)):
            changes["select"] = None  # nobody asked, and nothing tells that no example was trained on
        if model is not None:
            changes["load"] = _load_of(model, merge=self.study.load.merge)
        changes |= {"checkpoints": [str(self.folder)], "include_base": BASE in names}
        study = self.study.model_copy(update=changes)
        return ResolvedStudy(study, Base.in_training(study.base_model), checkpoints, (), self.dataset)


def check(study: Study) -> None:
    """Raise ``TangevalError`` for a study that asks for what a model in training does not give."""
    if study.engine and study.engine.kind != "local":
        raise TangevalError(
            f"{study.file}: engine: while training the model itself decodes; leave engine out"
        )
    if study.load != LoadSection(merge=study.load.merge):
        raise TangevalError(
            f"{study.file}: load: while training the weights are as the training holds them; leave all but merge out"
        )
    if max(study.decoding.contrast):
        raise TangevalError(
            f"{study.file}: decoding.contrast: while training there is no base model beside; leave it out"
        )


def _name(model: Any) -> str:
    """What a study calls the model that is trained: a shipped model's name, a folder, a hub id."""
    source = getattr(bare(model), "name_or_path", "") or "live"
    return next((name for name in shipped() if str(ASSETS / name) == source), source)


def _load_of(model: Any, *, merge: bool) -> LoadSection:
    """How a later run loads what is trained: in the dtype, or quantised, as the training holds it."""
    for bits, quantization in (("4", "nf4"), ("8", "int8")):
        if getattr(bare(model), f"is_loaded_in_{bits}bit", False):
            return LoadSection.model_validate({"quantization": quantization})
    dtype = str(model.dtype).removeprefix("torch.")
    # A study has no float64.
    return LoadSection.model_validate({"dtype": "auto" if dtype == "float64" else dtype, "merge": merge})
