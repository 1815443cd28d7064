"""Whether a checkpoint saw a poem in fine-tuning, by what ``train_ids.json`` records."""

import json
from dataclasses import replace

import pytest

from tangeval.core.study import Study
from tangeval.models.checkpoints import TrainRecord, discover, trained_on
from tangeval.resolve import ResolvedStudy
from tangeval.tasks.base import part_digests
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang import data as dataset

SAMPLE = dataset.load("sample")
POEM = SAMPLE.split("validation")[0]
OTHER = next(e for e in SAMPLE.split("train") if len(e.reference) == len(POEM.reference))


def record(*examples):
    return TrainRecord(
        frozenset(map(TANG.identity, examples)), frozenset(d for e in examples for d in part_digests(TANG, e))
    )


def saw(known, example=POEM):
    return known.saw(TANG.identity(example), part_digests(TANG, example))


def edition(example, clauses):
    """Another edition of a poem: the first clauses of its ending are another's."""
    parts = example.reference.split("，")
    return replace(example, reference="，".join([*OTHER.reference.split("，")[:clauses], *parts[clauses:]]))


def test_a_poem_is_seen_whole_in_another_edition_and_not_otherwise():
    assert saw(record(OTHER, POEM))
    assert edition(POEM, 1) != POEM
    assert saw(record(OTHER, edition(POEM, 1)))
    assert not saw(record(OTHER))
    assert not any(saw(record(*SAMPLE.split("train")), e) for e in SAMPLE.split("validation"))


def test_one_clause_in_common_is_no_edition():
    shared = replace(OTHER, input=POEM.input.split("，")[0] + "，" + OTHER.input.split("，")[1])
    assert set(part_digests(TANG, shared)) & set(part_digests(TANG, POEM))
    assert not saw(record(shared))


def test_records_of_older_checkpoints_hold_whole_poems_alone():
    old = TrainRecord(frozenset({TANG.identity(POEM)}))
    assert saw(old)
    assert not saw(old, edition(POEM, 1))


@pytest.mark.parametrize("parts", [True, False])
def test_a_resolved_study_counts_what_its_checkpoints_saw(tiny_run, tmp_path, parts):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoint-10").symlink_to(tiny_run / "checkpoint-10")
    known = record(edition(POEM, 1), SAMPLE.split("validation")[1])
    content = {"hashes": sorted(known.texts)} | ({"parts": sorted(known.parts)} if parts else {})
    (folder / "train_ids.json").write_text(json.dumps(content))
    (checkpoint,) = discover([str(folder)])[0]
    assert trained_on(checkpoint).texts == known.texts
    study = Study.model_validate({"name": "x", "data": "sample"})
    resolved = ResolvedStudy(study, None, (checkpoint,), (), SAMPLE)
    assert resolved.seen(checkpoint) == {"validation": 2 if parts else 1, "test": 0}
