"""Which way of keeping rows is chosen for models whose batches are not their texts one by one."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from tangeval.core.errors import TangevalError, UnusableError
from tangeval.decoding.batch import Way, Workspace
from tangeval.decoding.decoder import decode
from tangeval.decoding.memory import decode_in_memory
from tangeval.decoding.self_check import choose_way
from tangeval.engines.likelihood import token_nats
from tests.support.architectures import tiny_config, tiny_model
from tests.support.plain_decoder import sequence_of

PROMPTS = [[5, 6, 7, 8], [9, 8, 7, 6, 5, 4, 3, 2, 12, 14], [11, 12, 13, 14, 15, 16]]
SIZE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 0,
}  # fmt: skip


def llama(**changes):
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(LlamaConfig(**SIZE, **changes)).eval()


def generated(model, length):
    """Each prompt's tokens by transformers itself, with a model that has read nothing else."""
    return [
        copy.deepcopy(model)
        .generate(torch.tensor([p]), do_sample=False, max_new_tokens=length, eos_token_id=63, pad_token_id=0)[
            0, len(p) :
        ]
        .tolist()
        for p in PROMPTS
    ]


def decoded(model, way, length):
    sequences = [sequence_of(p, 0.0, 0, 1.0, length) for p in range(len(PROMPTS))]
    return decode_in_memory(model, PROMPTS, sequences, eos=[63], workspace=Workspace(way=way))


def test_an_ordinary_model_keeps_the_fastest_way(recwarn):
    assert choose_way(llama(), PROMPTS, 12) == Way(shares=True, pads=True)
    assert not [w for w in recwarn if "slower" in str(w.message)]


@pytest.mark.parametrize("replicas", [[(0, 2), (1, 3)], [(0, 3), (0, 3)]])
def test_layers_that_peft_replicates_write_what_generate_writes(replicas):
    adapted = get_peft_model(llama(), LoraConfig(target_modules=["q_proj"], layer_replication=replicas))
    assert decoded(adapted, choose_way(adapted, PROMPTS, 12), 12) == generated(adapted, 12)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("hrm_text", r"layers \[0, 1, .*\] attended, of 32"),
        ("jetmoe", "layer 0 attends over .* its cache has"),
    ],
)
def test_a_model_that_attends_otherwise_has_its_rows_copied(kind, reason):
    """Layers that are gone over several times under one index; heads that are not the cache's."""
    model = tiny_model(tiny_config(kind))
    with pytest.raises(TangevalError, match=reason):
        decode(model, PROMPTS, [sequence_of(0, 0.0, 0, 1.0, 4)], eos=[63])
    with pytest.warns(UserWarning, match=f"rows copied, prompts together .*{reason}"):
        assert choose_way(model, PROMPTS, 12) == Way(shares=False, pads=True)


def test_rotary_frequencies_that_grow_with_the_batch_run_one_prompt_at_a_time():
    """Dynamic NTK: a short prompt beside one beyond the trained length has other frequencies than alone."""
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    model = llama(max_position_embeddings=8, rope_parameters=rope)
    length = 14
    expected = generated(model, length)
    assert decoded(model, Way(), length) != expected
    with pytest.warns(UserWarning, match="rows shared, prompts one at a time"):
        way = choose_way(model, PROMPTS, length)
    assert way == Way(shares=True, pads=False)
    assert decoded(model, way, length) == expected
    answers = [[20 + n] * 6 for n in range(3)]
    for prompt, answer, own in zip(
        PROMPTS, answers, token_nats(model, PROMPTS, answers, Workspace(way=way)), strict=True
    ):
        fresh = llama(max_position_embeddings=8, rope_parameters=rope)
        with torch.inference_mode():
            logits = fresh(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        alone = -logits.log_softmax(-1)[torch.arange(6), torch.tensor(answer)]
        assert own == pytest.approx(alone.tolist(), abs=1e-4)


def test_a_quantised_model_may_round_as_its_kernels_do_whatever_its_dtype():
    """bitsandbytes' 4-bit kernel computes in bfloat16 on a CPU that can."""

    def rounded(layer, inputs, output):
        return output * (1 + 2**-9 * torch.randn_like(output))

    model = llama()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(rounded)
    with pytest.raises(UnusableError, match="differ by 0"):
        choose_way(model, PROMPTS, 12)
    model.is_quantized = True
    assert choose_way(model, PROMPTS, 12) == Way(shares=True, pads=True)


def test_a_model_that_is_never_the_same_is_refused_by_name():
    model = llama()
    model.lm_head.register_forward_hook(lambda module, given, logits: logits + torch.randn_like(logits))
    with pytest.raises(UnusableError, match="LlamaForCausalLM: its own generate and"):
        choose_way(model, PROMPTS, 12)


def test_logits_that_are_no_numbers_are_told_as_that():
    model = llama()
    model.lm_head.weight.data.fill_(torch.nan)
    with pytest.raises(UnusableError, match="not numbers"):
        choose_way(model, PROMPTS, 12)


@pytest.mark.parametrize("damage", [torch.nan, torch.inf, -torch.inf])
def test_a_likelihood_that_is_no_number_is_refused(damage):
    model = llama()
    with torch.no_grad():
        model.lm_head.weight[20] = damage
    with pytest.raises(UnusableError, match="not numbers"):
        token_nats(model, PROMPTS, [[20, 21]] * 3, Workspace())
