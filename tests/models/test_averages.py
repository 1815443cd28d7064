"""Averages of checkpoints: the mean of the weights, computed by hand, and what cannot be averaged."""

import copy
import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tangeval.core.errors import TangevalError
from tangeval.core.places import Average
from tangeval.core.study import Study, load_study
from tangeval.core.types import Base, Load
from tangeval.models.adapters import checksum, with_checkpoint
from tangeval.models.averages import averaged, fingerprint_of, record_of
from tangeval.models.checkpoints import discover
from tangeval.models.loading import load_model
from tangeval.reporting.notebook import Results
from tests.support.study import contents, evaluate, write_study
from tests.support.tiny import make_adapter, make_tiny_model

TOKENS = torch.tensor([[2, 40, 41, 42, 43, 44]])


def merged_by_hand(base, folders):
    """The mean of the weights that peft makes of each adapter alone."""
    wholes = []
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(base)
        wholes.append(PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict())
    model = AutoModelForCausalLM.from_pretrained(base)
    mean = {name: torch.stack([w[name].double() for w in wholes]).mean(0).float() for name in wholes[0]}
    model.load_state_dict(mean)
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model(TOKENS).logits


def adapter_of(base, folder, seed, **config):
    torch.manual_seed(seed)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **config)
    )
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(folder)
    return folder


CONFIGS = {
    "plain": {"r": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "patterns": {
        "r": 4, "lora_alpha": 3, "target_modules": ["q_proj", "v_proj", "o_proj"], "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"o_proj": 7},
    },
    "rslora": {"r": 8, "use_rslora": True, "target_modules": ["k_proj", "up_proj"], "rank_pattern": {"up_proj": 2}},
    "embedding": {"r": 8, "target_modules": ["embed_tokens", "q_proj"]},
    "saved": {"r": 8, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("merge", [False, True])
def test_an_average_of_adapters_has_the_logits_of_the_mean_of_their_merged_weights(
    tiny_model, tmp_path, config, merge
):
    members = [adapter_of(tiny_model, tmp_path / f"a{seed}", seed, **CONFIGS[config]) for seed in (1, 2, 3)]
    (average,) = averaged((), [Average(average=[str(m) for m in members])])
    load = Load(merge=merge)
    base = load_model(Base("tiny", str(tiny_model)), load)
    before = checksum(base)
    with with_checkpoint(base, average, load, fingerprint_of(average)) as model:
        found = logits(model)
    expected = logits(merged_by_hand(tiny_model, members))
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert checksum(base) == before
    # The mean of A and of B, each for itself, is another model.
    others = [load_file(m / "adapter_model.safetensors") for m in members]
    apart = shutil.copytree(members[0], tmp_path / "apart")
    save_file(
        {n: torch.stack([o[n] for o in others]).mean(0) for n in others[0]},
        apart / "adapter_model.safetensors",
    )
    assert (logits(merged_by_hand(tiny_model, [apart])) - expected).norm() > 1e-2 * expected.norm()


def test_an_average_of_full_models_is_the_mean_of_their_tensors(tmp_path):
    members = [make_tiny_model(tmp_path / f"m{seed}", seed) for seed in (1, 2)]
    AutoModelForCausalLM.from_pretrained(members[0]).save_pretrained(members[0], max_shard_size="200KB")
    (members[0] / "model.safetensors").unlink()
    assert len(list(members[0].glob("*.safetensors"))) > 1  # parts, where the other is whole
    (average,) = averaged((), [Average(average=[str(m) for m in members], name="both")])
    assert (average.name, average.kind, average.step) == ("both", "full", None)
    with with_checkpoint(None, average, Load()) as model:
        whole = [AutoModelForCausalLM.from_pretrained(m).state_dict() for m in members]
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, torch.stack([w[name] for w in whole]).mean(0)), name


def test_an_average_is_named_by_its_members_and_saw_all_that_they_saw(tiny_model, tmp_path):
    found = []
    for step in (10, 20):
        save = make_adapter(tiny_model, tmp_path / f"run{step}" / f"checkpoint-{step}", seed=step)
        (save / "train_ids.json").write_text(json.dumps({"hashes": [f"h{step}"]}))
        found += discover([str(save)])[0]
    (average,) = averaged(found, [Average(average=["checkpoint-10", "checkpoint-20"])])
    assert average.name == "average-10-20"
    assert average.path is None
    assert record_of(average).texts == {"h10", "h20"}
    before = fingerprint_of(average)
    make_adapter(tiny_model, tmp_path / "run20" / "checkpoint-20", seed=3)
    assert fingerprint_of(average) != before
    (tmp_path / "run10" / "checkpoint-10" / "train_ids.json").unlink()
    assert record_of(average) is None


def test_members_that_differ_in_more_than_numbers_are_refused_with_what_differs(tiny_model, tmp_path):
    def refused(match, *members, **keys):
        with pytest.raises(TangevalError, match=match):
            averaged((), [Average(average=[str(m) for m in members], **keys)])

    plain = [adapter_of(tiny_model, tmp_path / f"p{n}", n, **CONFIGS["plain"]) for n in (1, 2)]
    alpha = adapter_of(tiny_model, tmp_path / "alpha", 1, **CONFIGS["plain"], lora_alpha=16)
    refused("configuration differ: lora_alpha is 8 in p1 and 16 in alpha", plain[0], alpha)
    fewer = adapter_of(tiny_model, tmp_path / "fewer", 1, r=8, target_modules=["q_proj"])
    refused("target_modules is .* in p1 and .'q_proj'. in fewer", plain[0], fewer)
    other = adapter_of(make_tiny_model(tmp_path / "other"), tmp_path / "of_other", 1, **CONFIGS["plain"])
    refused("base_model_name_or_path is .* in p1 and .*other in of_other", plain[0], other)
    dora = [adapter_of(tiny_model, tmp_path / f"d{n}", n, **CONFIGS["plain"], use_dora=True) for n in (1, 2)]
    refused("not known exactly .use_dora: True", *dora)
    refused("p1 is of kind adapter and tiny of kind full", plain[0], tiny_model)
    refused(
        "checkpoint-9 is no checkpoint of the study .none., and there is no such folder",
        plain[0],
        "checkpoint-9",
    )
    refused("the name base is taken", *plain, name="base")
    runs = [shutil.copytree(p, tmp_path / "run" / f"checkpoint-{n}") for n, p in enumerate(plain, 1)]
    refused("run holds 2 whole checkpoints; name one", runs[0], tmp_path / "run")
    refused("one is named twice", plain[0], tmp_path / "run" / ".." / "p1")
    for run in runs:
        (run / "adapter_model.safetensors").unlink()  # saves that were cut off
    refused("run holds 0 whole checkpoints", plain[0], tmp_path / "run")


def test_a_study_says_averages_in_its_list(tmp_path):
    given = ["runs/x", {"average": ["checkpoint-1", "checkpoint-2"]}, {"average": ["a", "b"], "name": "swa"}]
    study = Study.model_validate({"name": "x", "checkpoints": copy.deepcopy(given)})
    assert study.content()["checkpoints"] == given
    (tmp_path / "study.yaml").write_text(study.to_yaml(), "utf-8")
    assert load_study(tmp_path / "study.yaml").content() == study.content()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"average": ["a"]}], "names two checkpoints or more, each once"),
        ([{"average": ["a", "b", "a"]}], "names two checkpoints or more, each once"),
        ([{"averages": ["a", "b"]}], "is no average"),
        ([{"average": ["a", "b"], "weights": [1, 2]}], "is no average"),
        ([{"average": "a"}], "is no average"),
        ([{"average": ["a", "b"], "name": "-x"}], "name: '-x' has more"),
        ({"average": ["a", "b"]}, "it stands in a list"),
    ],
)
def test_what_is_no_average_is_refused(tmp_path, given, said):
    with pytest.raises(TangevalError, match=said) as error:
        load_study(write_study(tmp_path, None, None, checkpoints=given))
    assert len(str(error.value).splitlines()) == 1


def test_an_average_is_one_more_checkpoint_of_a_run_and_makes_no_batch_of_the_others_anew(
    tiny_model, tiny_run, tmp_path
):
    two = ["checkpoint-10", "checkpoint-20"]
    evaluate(write_study(tmp_path, tiny_model, tiny_run), tmp_path / "out")
    before = contents(tmp_path / "out" / "generations")
    file = write_study(tmp_path, tiny_model, checkpoints=[str(tiny_run), {"average": two}])
    resolved = evaluate(file, tmp_path / "out")
    results = Results(tmp_path / "out")
    assert set(results.checkpoints["checkpoint"]) >= {"base", *two, "average-10-20"}
    (record,) = [r for r in results.run.manifest["checkpoints"] if "average" in r]
    assert record["average"] == [str(tiny_run / name) for name in two]
    assert record["seen"] == {"test": 0}
    after = contents(tmp_path / "out" / "generations")
    assert before.items() <= after.items()
    evaluate(file, tmp_path / "out")
    assert contents(tmp_path / "out" / "generations") == after
    # An adapter on each, and the base model before all.
    assert [c.kind for c in resolved.checkpoints] == ["base", "adapter", "adapter", "adapter"]
    texts = results.texts("test", checkpoint="average-10-20")["text"]
    assert not texts.equals(results.texts("test", checkpoint="checkpoint-20")["text"])
