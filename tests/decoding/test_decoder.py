"""The shared decode against Hugging Face's generate and against itself, setting by setting."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    Qwen2Config,
)

from tangeval.core.errors import TangevalError, UnusableError
from tangeval.decoding import batch as rows
from tangeval.decoding.batch import Shared, Workspace, prefill
from tangeval.decoding.decoder import decode
from tangeval.decoding.memory import decode_in_memory
from tangeval.decoding.noise import noise_key
from tangeval.models.tokens import encode_prompt
from tangeval.models.vocabulary import token_texts
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.prompt import asked
from tests.support.plain_decoder import plain_decode, sequence_of

EOS = 3


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="module")
def prompts(tiny_model):
    """Prompts of different lengths, so that padding has a part in every batch."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    examples = dataset.load("sample").split("test")[:5]
    ids = [encode_prompt(tokenizer, asked(example, "hw5")) for example in examples]
    assert len({len(i) for i in ids}) > 1
    return ids


def grid(prompts, length=24, temperatures=(0.0, 0.6, 1.2), no_repeat=0):
    return [
        sequence_of(p, t, k, q, length, noise_key(1, f"poem-{p}", sample), no_repeat_ngram_size=no_repeat)
        for p, t, k, q, sample in itertools.product(
            range(len(prompts)), temperatures, (0, 4), (0.5, 1.0), (0, 1)
        )
    ]


settings = st.tuples(
    st.sampled_from([0.0, 0.3, 0.8, 1.0, 1.7]),
    st.sampled_from([0, 1, 3, 40]),
    st.sampled_from([0.2, 0.55, 0.9, 1.0]),
)
histories = st.fixed_dictionaries(
    {},
    optional={
        "no_repeat_ngram_size": st.sampled_from([1, 2, 3]),
        "repetition_penalty": st.sampled_from([0.7, 1.3]),
        "presence_penalty": st.sampled_from([-0.5, 1.5]),
        "frequency_penalty": st.sampled_from([-0.25, 0.75]),
    },
)


@hypothesis_settings(max_examples=25, deadline=None, derandomize=True)
@given(
    grid=st.lists(settings, min_size=1, max_size=3, unique=True),
    chosen=st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True),
    samples=st.integers(1, 2),
    length=st.integers(1, 14),
    history=st.lists(histories, min_size=1, max_size=2),
    share=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_grid_decodes_as_one_sequence_at_a_time(
    model, prompts, grid, chosen, samples, length, history, share, seed
):
    """Against a decoder without cache or batch, by Hugging Face's own processors."""
    texts = [prompts[place] for place in chosen]
    sequences = [
        sequence_of(p, *setting, length, noise_key(seed, f"poem-{p}", sample), **knobs)
        for p, setting, knobs, sample in itertools.product(range(len(texts)), grid, history, range(samples))
    ]
    eos = [EOS, *range(40, 60)]
    decoded = decode(model, texts, sequences, eos=eos, share=share)
    for sequence, tokens in zip(sequences, decoded.tokens, strict=True):
        assert tokens == plain_decode(model, texts[sequence.prompt], sequence, eos)


@pytest.mark.parametrize(
    "knobs", [{}, {"no_repeat_ngram_size": 3}, {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2}]
)
def test_temperature_0_equals_generate(model, prompts, knobs):
    """By the side of other values, so that rows have several forms."""
    sequences = [sequence_of(p, 0.0, 0, 1.0, 30, **knobs) for p in range(len(prompts))]
    others = [sequence_of(p, 0.0, 0, 1.0, 30, repetition_penalty=0.8) for p in range(len(prompts))]
    decoded = decode(model, prompts, [*sequences, *others], eos=[EOS])
    for prompt, tokens in zip(prompts, decoded.tokens, strict=False):
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_new_tokens=30,
            **knobs,
            eos_token_id=EOS,
            pad_token_id=0,
        )
        assert tokens == expected[0, len(prompt) :].tolist()


def test_constrained_texts_are_those_of_one_sequence_at_a_time(model, tokenizer, prompts):
    """Beside free ones and other levels, on the rows that they share."""
    examples, texts = dataset.load("sample").split("test")[:5], token_texts(tokenizer)
    held = {level: list(map(writer(texts), examples)) for level, writer in TANG.constraints.items()}
    knobs = [(0.0, {}), (1.3, {"no_repeat_ngram_size": 1}), (0.9, {"repetition_penalty": 1.2})]
    sequences = [
        replace(
            sequence_of(p, t, k, 1.0, 52, noise_key(3, f"poem-{p}", 0), constrain=level, **more),
            constraint=held[level][p] if level in held else None,
        )
        for p in (0, 1) for level in ("none", *held) for t, more in knobs for k in ((0, 4) if not p else (0,))
    ]  # fmt: skip
    decoded = decode(model, prompts[:2], sequences, eos=[EOS]).tokens
    for sequence, tokens in zip(sequences, decoded, strict=True):
        if sequence.setting.no_repeat_ngram_size and sequence.constraint:
            assert tokens[-1] == EOS  # where a ban leaves nothing, it gives way: a mark stands more than once
        else:
            assert tokens == plain_decode(model, prompts[sequence.prompt], sequence, [EOS])


def test_setting_alone_equals_setting_in_grid(model, prompts):
    sequences = grid(prompts, no_repeat=3)
    together = decode(model, prompts, sequences, eos=[EOS]).tokens
    settings = {s.setting for s in sequences}
    assert len(settings) == 12
    for setting in settings:
        places = [i for i, s in enumerate(sequences) if s.setting == setting]
        alone = decode(model, prompts, [sequences[i] for i in places], eos=[EOS])
        assert alone.tokens == [together[i] for i in places]


def test_sharing_rows_changes_no_token_and_saves_rows(model, prompts):
    sequences = grid(prompts, no_repeat=3)
    shared = decode(model, prompts, sequences, eos=[EOS])
    apart = decode(model, prompts, sequences, eos=[EOS], share=False)
    assert shared.tokens == apart.tokens
    assert sum(shared.rows) < sum(apart.rows)


@pytest.mark.parametrize("sizes", [None, [7, 16, 40, 120]], ids=["any size", "few sizes, so places lie dead"])
def test_a_used_workspace_changes_no_token(model, prompts, sizes, monkeypatch):
    """Other prompts, fewer prompts, fewer sequences: what an earlier decode left behind is not seen."""
    made = rows._Buffers.__init__

    def make(self, *arguments):
        made(self, *arguments)
        if sizes:
            self.sizes = torch.tensor(sizes)

    sequences = grid(prompts, no_repeat=3)
    fresh = decode(model, prompts, sequences, eos=[EOS]).tokens
    monkeypatch.setattr(rows._Buffers, "__init__", make)
    workspace, options = Workspace(), {"eos": [EOS]}
    decode(model, prompts[::-1], sequences, workspace=workspace, **options)
    assert decode(model, prompts, sequences, workspace=workspace, **options).tokens == fresh
    few = [s for s in sequences if s.prompt < 2]
    buffers = workspace._buffers
    assert decode(model, prompts[:2], few, workspace=workspace, **options).tokens == fresh[: len(few)]
    assert workspace._buffers is buffers


def test_memory_that_is_short_halves_the_batch_and_is_tried_again_later(model, prompts):
    """A GPU's error at the second step of a decode of more than 40 rows; later the memory is there again."""
    sequences, options = grid(prompts, 6), {"eos": [], "share": False}
    whole, ended, tried, most = decode(model, prompts, sequences, **options).tokens, [], [], [40]

    def runs_out(module, arguments, inputs):
        rows, length = inputs["input_ids"].shape
        lengths.append(length)
        if length == 1 < lengths[-2]:
            tried.append(rows)
        elif length == 1 and rows > most[0]:
            raise torch.OutOfMemoryError("no room")

    lengths, calls, workspace = [1], [], Workspace()
    hook = model.register_forward_pre_hook(runs_out, with_kwargs=True)
    try:
        for most[0] in (40, 40, 1000, 1000):
            tokens = decode_in_memory(
                model, prompts, sequences, workspace=workspace, on_step=ended.append, **options
            )
            assert tokens == whole
            assert sum(ended) == len(whole)
            calls.append((tried[:], workspace.limit.too_many, workspace.limit.fitted))
            tried.clear()
            ended.clear()
    finally:
        hook.remove()
    halves = [30, 30, 30, 30]
    assert calls == [([120, 60, *halves], 60, 30), (halves, 60, 30), (halves, 60, 30), ([120], None, 120)]


def test_memory_that_does_not_hold_one_sequence_says_so(model, prompts):
    def runs_out(module, arguments, inputs):
        if inputs["input_ids"].shape[1] == 1:
            raise torch.OutOfMemoryError("no room")

    hook = model.register_forward_pre_hook(runs_out, with_kwargs=True)
    try:
        with pytest.raises(TangevalError, match="does not hold one output of max_length 24"):
            decode_in_memory(model, prompts, grid(prompts)[:4], eos=[], workspace=Workspace())
    finally:
        hook.remove()


def test_order_of_sequences_changes_no_token(model, prompts):
    sequences = grid(prompts)
    forward = decode(model, prompts, sequences, eos=[EOS]).tokens
    backward = decode(model, prompts, sequences[::-1], eos=[EOS]).tokens
    assert forward == backward[::-1]


def test_shorter_max_length_is_a_prefix(model, prompts):
    long = decode(model, prompts, grid(prompts, 24), eos=[EOS]).tokens
    short = decode(model, prompts, grid(prompts, 7), eos=[EOS]).tokens
    assert short == [tokens[:7] for tokens in long]


def test_sequences_end_at_eos_and_never_pass_it(model, prompts):
    """Half of the vocabulary ends a text, so nearly every sequence does before its limit."""
    eos = list(range(0, model.config.vocab_size, 2))
    decoded = decode(model, prompts, grid(prompts), eos=eos)
    assert any(tokens[-1] in eos for tokens in decoded.tokens)
    assert all(not set(tokens[:-1]) & set(eos) for tokens in decoded.tokens)


def test_samples_differ_and_seeds_differ(model, prompts):
    sequences = [
        sequence_of(0, 1.2, 0, 1.0, 12, noise_key(seed, "a", n)) for seed in (1, 2) for n in range(3)
    ]
    tokens = decode(model, prompts, sequences, eos=[EOS]).tokens
    assert len(set(map(tuple, tokens))) == 6


def test_sampled_first_tokens_follow_the_models_distribution(model, prompts):
    """The engine's draws against the model's own probabilities, on the likeliest tokens."""
    draws = 3000
    sequences = [sequence_of(0, 1.0, 0, 1.0, 1, noise_key(5, "a", n)) for n in range(draws)]
    tokens = torch.tensor(decode(model, prompts, sequences, eos=[EOS]).tokens).flatten()
    with torch.inference_mode():
        probabilities = model(torch.tensor([prompts[0]])).logits[0, -1].softmax(-1)
    for token in probabilities.topk(10).indices:
        p = probabilities[token].item()
        assert abs((tokens == token).sum().item() / draws - p) < 4 * (p * (1 - p) / draws) ** 0.5 + 1e-3


SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "shares"),
    [
        (LlamaConfig(**SMALL), True),
        (MistralConfig(**SMALL, sliding_window=4096), True),
        (MistralConfig(**SMALL, sliding_window=12), False),
        (Qwen2Config(**SMALL), True),
        (Gemma3TextConfig(**SMALL, head_dim=8, query_pre_attn_scalar=16, sliding_window=512), True),
        (GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5), True),
    ],
    ids=["llama", "mistral", "mistral that sees 12 tokens back", "qwen2", "gemma3", "gpt2"],
)
def test_rows_that_share_a_prompt_have_the_logits_of_the_whole_text(config, shares):
    """Against one forward pass over each row's whole text, alone and unpadded."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    prompts = [[5, 6, 7, 8], [9, 8, 7, 6, 5, 4, 3, 2], [11, 12, 13, 14, 15, 16]]
    written = [(0, [21, 22, 23]), (0, [21, 30, 31]), (1, [40, 41, 42]), (2, [50, 51, 52]), (0, [24, 25, 26])]
    with torch.inference_mode():
        _, batch = prefill(model, prompts, 8, [3, 1, 1], Workspace())
        assert isinstance(batch, Shared) == shares
        # Rows 0, 2 and 3 are on prompt 0, which lies at place 0; prompts 1 and 2 stay where they are.
        place, move = torch.tensor([0, 3, 1, 2, 4]), (torch.tensor([0, 0]), torch.tensor([3, 4]))
        for step in range(3):
            new = torch.tensor([tokens[step] for _, tokens in written])
            logits = batch.advance(5, *move, place, new)[place]
            move = (place[:0], place[:0])
        for row, (prompt, tokens) in zip(logits, written, strict=True):
            alone = model(torch.tensor([prompts[prompt] + tokens])).logits[0, -1]
            assert torch.allclose(row, alone, atol=1e-4)


def test_logits_that_are_no_numbers_after_the_first_step_are_refused():
    """The third token's embedding is damaged: what is decoded after it is not drawn from NaN."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL)).eval()
    greedy, drawn = (sequence_of(0, t, 0, 1.0, 8, key=5, no_repeat_ngram_size=1) for t in (0.0, 1.3))
    for sequence in (greedy, drawn):
        first = decode(model, [[5, 6, 7]], [sequence], eos=[]).tokens[0][:3]
        assert len({*first, 5, 6, 7}) == 6
        damaged = copy.deepcopy(model)
        with torch.no_grad():
            damaged.model.embed_tokens.weight[first[2]] = torch.nan
        with pytest.raises(UnusableError, match="not numbers"):
            decode(damaged, [[5, 6, 7]], [sequence], eos=[])
        assert decode(damaged, [[5, 6, 7]], [sequence], eos=[first[2]]).tokens == [first]


def test_a_model_with_a_state_for_a_cache_is_refused():
    size = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "pad_token_id": 0}
    model = MambaForCausalLM(MambaConfig(**size)).eval()
    with pytest.raises(TangevalError, match="model with attention"):
        decode(model, [[5, 6, 7]], [sequence_of(0, 0.0, 0, 1.0, 4)], eos=[63])


def test_learned_absolute_positions_are_right_under_padding():
    """GPT-2 adds a vector for each position: a wrong position id would show at once."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5)
    model = GPT2LMHeadModel(config).eval()
    prompts = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3]]
    sequences = [sequence_of(p, 0.0, 0, 1.0, 12) for p in (0, 1)]
    decoded = decode(model, prompts, sequences, eos=[49])
    for prompt, tokens in zip(prompts, decoded.tokens, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=12, eos_token_id=49, pad_token_id=0
        )
        assert tokens == expected[0, len(prompt) :].tolist()
