"""A task in a YAML file: what it reads, renders, compares, measures, and what it refuses."""

import json
import time
from dataclasses import replace

import datasets
import pandas as pd
import pytest
import yaml
from sacrebleu.metrics import BLEU

from tangeval import api, tasks
from tangeval.analysis import headroom, scoring, verdict
from tangeval.analysis.aggregate import corpus_scores
from tangeval.core.errors import TangevalError
from tangeval.judge.asking import PairPrompt, Prompt
from tangeval.metrics.base import Texts
from tangeval.results.folder import RunFolder
from tangeval.tasks.base import leaks
from tangeval.tasks.tang.prompt import prompt_text
from tests.support.study import evaluate, write_study

TASK = {
    "name": "words",
    "data": {"train": "train.jsonl", "test": 2, "validation": 2},
    "fields": {"prompt": ["word"], "reference": "answer", "cluster": "kind"},
    "prompt": "{% if kind == 'odd' %}Odd: {% endif %}{{ word }}?",
    "text": {"normalize": ["lower"], "compare": "words"},
    "metrics": ["bleu", "exact", "perplexity"],
}
RECORDS = [
    {"word": f"w{n}", "answer": f"Answer {n}.", "kind": "odd" if n % 2 else f"k{n}", "n": n}
    for n in range(12)
]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Write a task file and its records; return its path."""

    def make(records=RECORDS, written=None, into="train.jsonl", **changes):
        lines = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)
        (tmp_path / into).write_text(lines if written is None else written, "utf-8")
        (tmp_path / "task.yaml").write_text(yaml.safe_dump(TASK | changes, allow_unicode=True), "utf-8")
        return str(tmp_path / "task.yaml")

    monkeypatch.setenv("TANGEVAL_ALLOW_TASK_FILES", "1")
    return make


def texts(task, data, written, finish="stop"):
    examples = data.split("train")[: len(written)]
    return Texts(written, examples, [finish] * len(written), task.normalise)


def measured(task, data, name, *written, finish="stop"):
    return list(map(float, task.metrics[name].compute(texts(task, data, written, finish))))


def test_a_prompt_is_rendered_of_a_records_fields(made):
    task = tasks.load(made())
    data = task.load("sample", None)
    assert task.prompt(data.by_id["train-1"], "plain") == "w0?"
    assert task.prompt(data.by_id["train-2"], "chat") == [{"role": "user", "content": "Odd: w1?"}]


def test_messages_of_a_chat_are_templates(made):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ word|upper }}"}]
    task = tasks.load(made(prompt=None, chat=chat))
    example = task.load("sample", None).by_id["train-1"]
    assert task.templates == ("chat",)
    assert task.prompt(example, "chat") == [chat[0], {"role": "user", "content": "W0"}]


def test_held_out_records_share_neither_cluster_nor_sentence_with_training(made):
    long = [{"word": f"same words for all of {n // 2}", "answer": f"a {n}", "kind": n} for n in range(12)]
    task = tasks.load(made(long))
    data = task.load("sample", None)
    assert [e.id for e in data.split("test")] == ["train-11", "train-12"]
    assert [e.id for e in data.split("validation")] == ["train-9", "train-10"]
    assert not leaks(task, data, "test")
    with pytest.raises(TangevalError, match=r"data.validation: 3 records were asked for, and 2 can be"):
        task.load("sample", 3)
    with pytest.raises(TangevalError, match=r"data.test: 2 records were asked for, and 0 can be"):
        tasks.load(made([{**record, "kind": "one"} for record in RECORDS])).load("sample", None)


@pytest.mark.parametrize("name", ["train.json", "train.csv", "train.tsv", "train.parquet", "folder"])
def test_every_format_gives_the_same_examples(made, tmp_path, name):
    records = [{**record, "word": f'{record["word"]}, "日本"\n🙂 ابجد'} for record in RECORDS]
    expected = tasks.load(made(records)).load("sample", None)
    frame = pd.DataFrame(records)
    if name == "folder":
        datasets.DatasetDict({"train": datasets.Dataset.from_pandas(frame)}).save_to_disk(
            str(tmp_path / name)
        )
    elif name.endswith("parquet"):
        frame.to_parquet(tmp_path / name)
    elif name.endswith("json"):
        (tmp_path / name).write_text(json.dumps(records, indent=1), "utf-8")
    else:
        frame.to_csv(tmp_path / name, index=False, sep="\t" if name.endswith("tsv") else ",")
    file = made(records, data=TASK["data"] | {"train": name})
    assert tasks.load(file).load("sample", None).examples == expected.examples


def test_a_folder_of_ones_own_takes_the_files_place(made, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "train.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in RECORDS[:6]))
    task = tasks.load(made())
    assert len(task.load(str(tmp_path / "more"), 0).examples) == 6


def test_a_cell_may_hold_any_separator_of_lines_but_a_names_column_is_one(made):
    fields = {"fields": {"prompt": "word", "reference": "answer"}, "prompt": "{{ word }}"}
    data = {"train": "a.csv", "test": 1}
    file = made(written="word,answer\na\u2028b\x85c,d\ne,f\n", into="a.csv", data=data, **fields)
    assert tasks.load(file).load("sample", None).by_id["train-1"].input == "a\u2028b\x85c"
    with pytest.raises(TangevalError, match=r"a.csv, line 1: two columns of one name: word, answer, word"):
        tasks.load(made(written="word,answer,word\na,b,c\n", into="a.csv", data=data)).load("sample", None)


def test_a_template_that_fails_for_a_record_names_it(made):
    task = tasks.load(made([{**record, "word": ""} for record in RECORDS], prompt="{{ word|first }}"))
    with pytest.raises(TangevalError, match=r"^prompt: No first item.*, for .*'word': ''"):
        task.prompt(task.load("sample", 0).examples[0], "plain")


@pytest.mark.parametrize(("many", "references"), [(1, "1"), (2, "2"), (None, "var")])
def test_a_signature_says_tokenizer_and_number_of_references(made, many, references):
    records = [
        {**r, "answer": [f"a {n} {i}" for i in range(many or n % 3 + 1)]} for n, r in enumerate(RECORDS)
    ]
    task = tasks.load(made(records, metrics=["bleu", "chrf"]))
    said = task.signatures(task.load("sample", None))
    assert said["bleu"].startswith(f"nrefs:{references}|case:mixed|eff:no|tok:13a|")
    assert said["chrf"].startswith(f"nrefs:{references}|")
    assert not tasks.load(made(metrics=["exact"])).signatures(task.load("sample", None))


@pytest.mark.parametrize("tokenize", ["13a", "char", "zh"])
def test_bleu_is_sacrebleus_with_its_tokenizer_and_several_references(made, tokenize):
    records = [
        {**record, "answer": [record["answer"], f"the answer is {n}, yes"]}
        for n, record in enumerate(RECORDS)
    ]
    task = tasks.load(made(records, metrics=[{"bleu": {"tokenize": tokenize}}], text={"compare": "text"}))
    data = task.load("sample", None)
    written = ["The answer is 0, yes", "Answer 1", "no answer is 2, yes"]
    own, metric = texts(task, data, written), task.metrics["bleu"]
    counts = metric.compute(own).T.astype("int32")[:, None, :, None]
    references = [[e.reference for e in own.examples], [e.references[0] for e in own.examples]]
    oracle = BLEU(tokenize=tokenize).corpus_score(written, references).score
    assert corpus_scores(metric, list(counts), [[1, 1, 1]])[0, 0] == pytest.approx(oracle)


def test_rouge_l_is_that_of_lins_example(made):
    """Lin (2004), section 3.1: P = R = 3/4, and 1/2."""
    task = tasks.load(
        made([{**r, "answer": "police killed the gunman"} for r in RECORDS], metrics=["rouge_l"])
    )
    data = task.load("sample", 0)
    given = ("Police kill the gunman", "the gunman kill police")
    assert measured(task, data, "rouge_l", *given) == [75, 50]


def test_the_best_of_several_references_counts(made):
    records = [{**record, "answer": ["yes", "of course"]} for record in RECORDS]
    task = tasks.load(made(records, metrics=["exact"]))
    assert measured(task, task.load("sample", 0), "exact", "Of course", "yes!", "no") == [1, 1, 0]


@pytest.mark.parametrize(
    ("check", "holds", "fails"),
    [
        ({"regex": r"\d+"}, "12", "a1"),
        ({"name": "own", "regex": "[ab]+"}, "ab", "abc"),
        ({"lines": 2}, "a\n\nb", "a"),
        ({"name": "pattern", "from": "fields.n"}, "", "abc"),
        ({"pattern": [3, 2]}, "三個字，兩字。", "三個字。"),
        ({"max_characters": 3}, "a b c", "abcd"),
        ({"max_words": 2}, "two words", "three words now"),
        ({"script": "Han"}, "漢字，3", "漢字 x"),
        ({"script": "Arabic"}, "ابجد", "abjad"),
        ({"same_length": "七個字的一句話"}, "也是七個字的話", "六個字的話語"),
        ({"name": "no_repeat", "from": "word"}, "甲乙", "甲甲"),
        ({"opposed_tones": "白日依山盡"}, "黃河入海流", "黃日入海流"),
        ({"syllables": [5, 7, 5]}, "An old silent pond\nA frog jumps into the pond\nSplash! Silence again", "pond"),
    ],
    ids=str,
)  # fmt: skip
def test_a_check_holds_or_fails(made, check, holds, fails):
    task = tasks.load(made(checks=[check]))
    name = list(task.metrics)[-1]
    got = measured(task, task.load("sample", 0), name, holds, fails)
    assert got == ([0, 0] if holds == "" else [1, 0])
    if holds:
        assert measured(task, task.load("sample", 0), "form", holds, finish="length") == [0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "{{ wordd }}"}, r"train.jsonl, line 1: there is no field wordd; it has word, answer"),
        ({"prompt": "{{ word"}, r"task.yaml: prompt, line 1: unexpected end"),
        ({"prompt": "a\n{{ word.__class__ }}"}, r"prompt, line 2: getattr is not taken"),
        ({"prompt": "{% for c in word %}{% endfor %}"}, r"prompt, line 1: for is not taken"),
        ({"prompt": "{{ word * 1000000 }}"}, r"prompt, line 1: mul is not taken"),
        ({"prompt": "{{ word|center(100000000) }}"}, r"prompt, line 1: the filter center is not taken"),
        ({"prompt": "{{ word", "chat": [{"role": "user", "content": "x"}]}, r"give prompt, .* or chat"),
        ({"prompt": "{{ range }}"}, r"train.jsonl, line 1: there is no field range"),
        ({"prompt": "{{ self }}"}, r"prompt, line 1: self is not taken"),
        ({"prompt": "{% if n == 5 %}{{ word }}{% endif %}"}, r"line 1: text is compared with a number"),
        ({"prompt": None, "chat": [{"role": "assistant", "content": "x"}]}, r"chat: the last message is the assistant's"),
        ({"data": {"train": "../x.jsonl", "test": 1}}, r"\.\./x.jsonl: outside"),
        ({"data": {"train": "none.jsonl", "test": 1}}, r"none.jsonl is missing"),
        ({"data": {"train": "task.yaml", "test": 1}}, r"task.yaml: give a folder of `datasets`, or .jsonl"),
        ({"fields": {"prompt": "word", "reference": "rest"}}, r"line 1: there is no field rest"),
        ({"metrics": ["blue"]}, r"metrics: there is no blue; there are bleu"),
        ({"metrics": [{"bleu": {"tokenise": "char"}}]}, r"metrics: bleu: tokenise is no option"),
        ({"metrics": [{"bleu": {"tokenize": "x"}}]}, r"metrics: bleu: tokenize: x cannot be had: none, zh, 13a"),
        ({"metrics": ["exact", "exact"]}, r"metrics: exact is there twice"),
        ({"checks": ["lenght"]}, r"checks: there is no lenght"),
        ({"checks": [{"regex": "("}]}, r"regex '\(': "),
        ({"checks": [{"lines": "three"}]}, r"task.yaml: checks: lines: 'three' is no value of it"),
        ({"checks": [{"max_characters": -1}]}, r"max_characters: -1 is no value of it"),
        ({"checks": [{"lines": 2.7}]}, r"lines: 2.7 is no value of it"),
        ({"checks": ["max_words"]}, r"task.yaml: checks: max_words: it has no value; give \{max_words: value\}"),
        ({"checks": [{"script": "Klingon"}]}, r"task.yaml: regex .*Klingon.*: unknown property value"),
        ({"checks": [{"name": "sample", "lines": 1}]}, r"metrics: 'sample' cannot be a column's name"),
        ({"checks": [{"name": "exact_low", "lines": 1}]}, r"metrics: 'exact_low' cannot be a column's name"),
        ({"checks": [{"name": "a,\nb", "lines": 1}]}, r"cannot be a column's name"),
        ({"text": {"compare": "wrods"}}, r"task.yaml: text.compare: "),
        ({"name": "a b"}, r"task.yaml: name: "),
        ({"nmae": 1}, r"task.yaml: nmae: unknown key; did you mean name"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_task_file_cannot_say_is_refused_with_its_place(made, changes, said):
    with pytest.raises(TangevalError, match=said):
        tasks.load(made(**changes)).load("sample", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"word": "a", "answer": "b", "kind": "k"}\n{"word": 1', r"train.jsonl, line 2: not valid JSON"),
        ('[{"word": "a"}]', r"line 1: expected a mapping"),
        ('\n{"word": "a", "answer": " ", "kind": "k"}', r"line 2: answer is empty"),
        ('{"word": "a", "answer": [], "kind": "k"}', r"line 1: answer is empty"),
        ('{"word": "a", "answer": NaN, "kind": "k"}', r"line 1: answer is nan; give a text"),
        ('{"word": {"a": 1}, "answer": "b", "kind": "k"}', r"line 1: word is dict; give a text"),
        (json.dumps({"word": "a" * 10_000_000, "answer": "b", "kind": "k"}), r"10,000,000 characters; at most"),
        ("", r"train.jsonl: no record"),
    ],
    ids=["broken", "list", "empty", "none", "number", "mapping", "long", "nothing"],
)  # fmt: skip
def test_a_record_that_cannot_be_taken_is_named(made, text, said):
    with pytest.raises(TangevalError, match=said):
        tasks.load(made(written=text)).load("sample", None)


def test_a_line_of_a_json_list_is_named(made):
    records = json.dumps([*RECORDS[:3], {"word": "a"}], indent=0)
    file = made(written=records, into="list.json", data={"train": "list.json", "test": 1})
    with pytest.raises(TangevalError, match=r"list.json, line 20: there is no field kind"):
        tasks.load(file).load("sample", None)


def test_a_link_out_of_the_folder_is_refused(made, tmp_path_factory, tmp_path):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x.jsonl"
    elsewhere.write_text(json.dumps(RECORDS[0]))
    (tmp_path / "link.jsonl").symlink_to(elsewhere)
    with pytest.raises(TangevalError, match=r"link.jsonl: outside"):
        tasks.load(made(data={"train": "link.jsonl", "test": 1})).load("sample", None)


def test_a_regular_expression_that_runs_away_is_stopped_and_named(made):
    task = tasks.load(made(checks=[{"regex": "(a|a)+$"}]))
    begun = time.monotonic()
    with pytest.raises(TangevalError, match=r"regex .* takes more than"):
        measured(task, task.load("sample", 0), "form", "a" * 40 + "b")
    assert time.monotonic() - begun < 20


def test_random_draws_are_other_references_of_the_same_kind(made):
    task = tasks.load(made(baseline={"same": "kind"}))
    data = task.load("sample", 0)
    drawn = set(task.baseline(data, data.by_id["train-2"], 1, 200))
    assert drawn == {f"Answer {n}." for n in (3, 5, 7, 9, 11)}
    assert not task.nearest(data, data.by_id["train-2"])
    assert tasks.load(made(baseline="none")).baseline(data, data.by_id["train-1"], 1, 5) == []


def test_only_what_decides_texts_is_in_the_wording(made):
    one, other = tasks.load(made()), tasks.load(made(metrics=["exact"]))
    assert one.wording == other.wording
    assert one.digest != other.digest
    assert tasks.load(made(prompt="{{ word }}!")).wording != one.wording


def test_a_changed_file_is_read_anew(made):
    assert tasks.load(made()).name == "words"
    assert tasks.load(made(metrics=["exact"])).metrics.keys() == {"exact", "complete"}


def test_a_study_may_hold_the_task(made, tmp_path, monkeypatch):
    made()
    monkeypatch.chdir(tmp_path)
    assert (
        tasks.load(TASK).load("sample", None).examples
        == tasks.load("task.yaml").load("sample", None).examples
    )


def test_scores_of_references_and_random_texts(made):
    task = tasks.load(made())
    data = task.load("sample", None)
    rows = pd.concat(
        [scoring.reference_rows(task, data, "test"), scoring.random_rows(task, data, "test", 1, 1)]
    )
    scores = scoring.score_texts(rows, task, data).groupby("checkpoint")["exact"].mean()
    assert scores["reference"] == 1
    assert scores["random"] == 0


def test_a_judge_is_told_what_the_task_says(made, tmp_path):
    asked = {"system": "You judge.", "user": "$input: $output"}
    write_study(tmp_path, task=made(judge={"grades": asked})).rename(tmp_path / "study.yaml")
    assert api.judge_prompt(tmp_path, Prompt).messages("hot", "cold")[1]["content"] == "hot: cold"
    with pytest.raises(TangevalError, match=r"task words says nothing to a judge; give --prompt, or"):
        api.judge_prompt(tmp_path, PairPrompt)
    made(judge={"grades": asked | {"user": "$input"}})
    with pytest.raises(TangevalError, match=r"task words: judge: user: must hold \$input and \$output"):
        api.judge_prompt(tmp_path, Prompt)


def test_outputs_made_elsewhere_are_scored(made, tmp_path):
    file = made()
    rows = [{"word": "w10", "predict": "Answer 10."}, {"word": "w8", "predict": "no"}]
    for name, written in {
        "by_field.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows),
        "by_id.json": json.dumps([{"id": "train-9", "text": "no"}, {"id": "train-11", "text": "Answer 10."}]),
        "order.txt": "no\nAnswer 10.\n",
    }.items():
        (tmp_path / name).write_text(written)
        scored = api.score_files([tmp_path / name], task=file)
        assert scored.outputs[0].texts == ("no", "Answer 10.")
        assert scored.table.set_index("checkpoint").loc[name, "exact"] == 0.5
    both = [tmp_path / "by_id.json", tmp_path / "order.txt"]
    assert set(api.score_files(both, task=file).differences["metric"]) == {"bleu", "exact"}
    assert set(api.score_files(both, task=made(metrics=["chrf"])).differences["metric"]) == {"chrf"}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("one\n", r"1 outputs for 2 examples"),
        ("one\ntwo\nthree\n", r"3 outputs for 2 examples"),
        ('{"id": "train-1", "text": "x"}\n', r"line 1: id 'train-1' is train; give one"),
        (
            '{"id": "train-11", "text": "x"}\n{"id": "train-11", "text": "y"}\n',
            r"line 2: .* is answered twice",
        ),
        ('{"id": "train-11", "txt": "x"}\n', r"line 1: there is no field predict; it has id, txt"),
    ],
)
def test_outputs_that_are_no_pairs_are_refused(made, tmp_path, written, said):
    file = tmp_path / ("o.jsonl" if written.startswith("{") else "o.txt")
    file.write_text(written)
    with pytest.raises(TangevalError, match=said):
        api.score_files([file], task=made())


def test_of_a_form_that_training_has_not_the_nearest_is_drawn_and_named(made):
    """Forty records have from one to forty lines; the record whose kind is its own has three."""
    records = [
        {"word": f"w{n}", "kind": "odd", "answer": "\n".join(f"{n} {k}" for k in range(n))}
        for n in range(1, 41)
    ]
    alone = {"word": "x", "kind": "own", "answer": "a\nb\nc"}
    whole = {"train": "train.jsonl", "test": 0}
    task = tasks.load(made([*records, alone], baseline={"same": "kind"}, data=whole))
    data = task.load("sample", 0)
    example = data.examples[-1]
    assert {len(text.splitlines()) for text in task.baseline(data, example, 1, 500)} == set(range(1, 33))
    said = "the 32 references nearest in lines and length, for no other has kind own"
    assert task.nearest(data, example) == said
    with pytest.warns(UserWarning, match=r"1 of 41 train examples have no training text .* train-41"):
        scoring.random_rows(task, data, "train", 1, 2, 2)


def test_where_all_references_are_one_text_it_is_drawn(made):
    task = tasks.load(
        made([{**record, "answer": "yes"} for record in RECORDS], data={"train": "train.jsonl", "test": 0})
    )
    data = task.load("sample", 0)
    assert set(task.baseline(data, data.examples[0], 1, 5)) == {"yes"}
    assert "its own text" in task.nearest(data, data.examples[0])


def test_without_a_baseline_there_is_no_random_row(made, tiny_model, tmp_path):
    study = write_study(tmp_path, tiny_model, task=made(baseline="none"), samples=1, select=None)
    evaluate(study, tmp_path / "out", "decoding.temperature=1.0", "decoding.max_length=3")
    assert set(pd.read_csv(tmp_path / "out" / "summary.csv")["checkpoint"]) == {"base", "reference"}
    assert list(api.calibrate("sample", task=str(tmp_path / "task.yaml")).index) == ["reference"]


def test_no_claim_is_made_of_a_length(made, tiny_model, tmp_path):
    """A text twice as long as its reference is no better one."""
    file = made(metrics=["length_ratio", "exact"])
    study = write_study(tmp_path, tiny_model, task=file, samples=2, select=None)
    resolved, run = evaluate(study, tmp_path / "out"), RunFolder(tmp_path / "out")
    said = json.dumps(verdict.verdict(resolved.study, run))
    assert '"exact"' in said
    assert "length_ratio" not in said
    found = headroom.headroom(resolved.study, run, "test", "base")
    assert "length_ratio" in found.reranked
    assert "length_ratio" not in {*found.best_of, *found.oracle["metric"]}


@pytest.mark.parametrize(
    ("code", "text", "holds"),
    [
        ("zh", "白日依山盡 (Wang)", False), ("zh", "白日依山盡，黃河入海流。更上一層樓 A", True), ("zh", "ひらがな", False),
        ("ja", "東京に行きます", True), ("ja", "白日依山盡", False), ("en", "It costs 5 €.", True), ("ko", "안녕하세요", True),
        ("ar", "مرحبا بالعالم", True), ("en", "123", False),
    ],
)  # fmt: skip
def test_a_language_is_told_by_its_scripts(made, code, text, holds):
    task = tasks.load(made(checks=[{"language": code}]))
    assert measured(task, task.load("sample", 0), "language", text) == [holds]


def test_a_language_without_a_script_is_named(made):
    with pytest.raises(TangevalError, match="language: xx is none of ar, el"):
        tasks.load(made(checks=[{"language": "xx"}]))


def test_the_homeworks_prompt_is_rendered_as_the_homework_has_it(made):
    records = [{"instruction": "續寫", "input": f"句{n}。", "answer": f"a {n}."} for n in range(12)]
    fields = {"prompt": ["instruction", "input"], "reference": "answer"}
    task = tasks.load(made(records, prompt="hw5", fields=fields))
    example = task.load("sample", None).examples[0]
    assert task.prompt(example, "plain") == prompt_text(replace(example, instruction="續寫", input="句0。"))


def test_clusters_that_are_larger_than_what_is_held_out_are_counted(made):
    same = [{**record, "kind": f"k{n % 3}"} for n, record in enumerate(RECORDS)]
    with pytest.raises(
        TangevalError, match=r"and 0 can be .* 3 groups of 4 records or more .* ask for 4 at least"
    ):
        tasks.load(made(same)).load("sample", None)
