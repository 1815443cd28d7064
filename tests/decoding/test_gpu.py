"""What runs on a GPU alone: the draw as a kernel, attention by FlashAttention, recorded steps."""

import copy
import itertools
import random
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, MistralConfig

from tangeval.core.knobs import CUTS, KNOB, Setting
from tangeval.decoding import batch, sampler, shared_prefix
from tangeval.decoding.batch import Shared, Workspace, prefill
from tangeval.decoding.contrast import Reader
from tangeval.decoding.decoder import TokenSequence, _begun, decode
from tangeval.decoding.noise import noise_key
from tangeval.decoding.sampler import Kind, SequenceBatch, kind_of
from tangeval.decoding.shared_prefix import FlashStore
from tests.decoding.test_beams import Rhythm
from tests.decoding.test_cuts import ORACLES
from tests.support.plain_decoder import sequence_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
SMALL = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = [
    pytest.param(MistralConfig(**SMALL, head_dim=128, sliding_window=None), id="mistral"),
    pytest.param(Gemma3TextConfig(**SMALL, head_dim=256, sliding_window=512), id="gemma3"),
]
PROMPTS = [[5, 6, 7, 8], [9, 8, 7, 6, 5, 4, 3, 2], [11, 12, 13, 14, 15, 16]]


def on_gpu(config, dtype=torch.bfloat16):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval().to("cuda")


def grid(prompts=3, samples=3, length=20, sizes=(3,)):
    return [
        sequence_of(p, t, k, q, length, noise_key(1, f"poem-{p}", s), no_repeat_ngram_size=n)
        for p, t, k, q, n, s in itertools.product(
            range(prompts), (0.0, 0.5, 1.0, 1.6), (0, 4), (0.5, 0.9, 1.0), sizes, range(samples)
        )
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("size", [100, 5000])
@pytest.mark.parametrize("spread", [0.0, 0.4, 3.0])
def test_the_kernel_draws_what_tensors_draw(dtype, size, spread, monkeypatch):
    """All kinds of sequences, few and many candidates, ties without number, banned tokens."""
    assert sampler.draw is not None
    generator = torch.Generator().manual_seed(3)
    logits = (torch.randn(4, size, generator=generator) * spread).to(dtype).cuda()
    logits[0, 5:9] = -torch.inf
    temperatures = torch.tensor([0.0, 0.3, 1.0, 2.0])
    knobs = list(
        itertools.product(
            range(4), range(4), range(5), (0, 1, 7, 64, 70, size - 3), (0.05, 0.3, 0.8, 0.99, 1.0)
        )
    )
    kind = [
        kind_of(Setting.of(temperature=float(temperatures[t]), top_k=k, top_p=p)) for _, t, _, k, p in knobs
    ]
    kinds = torch.tensor(kind).bincount(minlength=len(Kind))
    order = sorted(range(len(knobs)), key=kind.__getitem__)
    row, temperature, noise, top_k, top_p = map(list, zip(*(knobs[place] for place in order), strict=True))
    fields = [torch.tensor(x).cuda() for x in (row, temperature, noise)]
    cuts = {"top_k": torch.tensor(top_k).cuda(), "top_p": torch.tensor(top_p).double().cuda()}
    sequences = SequenceBatch(*fields, cuts)
    keys = torch.tensor([noise_key(1, f"{n}", 0) for n in range(5)]).cuda()
    arguments = (logits, sequences, kinds.tolist(), temperatures.cuda(), keys, 4)
    drawn = sampler.choose(*arguments)
    monkeypatch.setattr(sampler, "draw", None)
    expected = sampler.choose(*arguments)
    # A logarithm's last bit decides where two tokens are all but level.
    assert (drawn != expected).float().mean() <= 2 / len(knobs)


def points(names, chance):
    """Each cut's values alone, none, and two to four cuts together; greedy too."""
    alone = [{name: value} for name in names for value in ORACLES[name][1]]
    mixed = [
        {name: chance.choice(ORACLES[name][1]) for name in chance.sample(names, chance.randint(2, 4))}
        for _ in range(40)
    ]
    return [
        Setting.of(temperature=chance.choice((0.3, 0.7, 1.5)), **knobs) for knobs in [*alone, *mixed, {}]
    ] + [Setting.of(temperature=0, **mixed[0])]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("size", [100, 300, 5000])
@pytest.mark.parametrize("names", [(name,) for name in CUTS if name != "typical_p"] + [CUTS], ids="+".join)
def test_the_kernel_makes_cuts_as_tensors_do(dtype, size, names, monkeypatch):
    """Alone and several after another, several settings a row; flat and steep rows, ties without number, banned tokens."""
    assert [name for name in CUTS if name in sampler.SUPPORTS] == [
        name for name in CUTS if name != "typical_p"
    ]
    generator, chance = torch.Generator().manual_seed(3), random.Random(1)
    spread = torch.tensor([[0.0], [0.05], [0.4], [1.0], [2.0], [4.0], [8.0]])
    logits = (torch.randn(len(spread), size, generator=generator) * spread).to(dtype)
    logits[2:5, 5:9] = -torch.inf
    logits[3] = logits[3].float().round().to(dtype)
    settings = points(names, chance) if len(names) > 1 else [
        Setting.of(temperature=t, **{names[0]: value}) for t in (0.0, 0.3, 1.5) for value in (KNOB[names[0]].off, *ORACLES[names[0]][1])
    ]  # fmt: skip
    sequences = [
        TokenSequence(row, setting, noise_key(1, "", sample))
        for row in range(len(logits)) for setting in settings for sample in range(3)
    ]  # fmt: skip
    live, *_ = _begun(sequences, [], torch.device("cuda"))
    kinds = live.kind.bincount(minlength=len(Kind)).tolist()
    arguments = (logits.cuda(), live.batch, kinds, live.temperatures, live.keys, 4)
    drawn = sampler.choose(*arguments)
    monkeypatch.setattr(sampler, "draw", None)
    differ = (drawn != sampler.choose(*arguments)).nonzero()[:, 0].tolist()
    lines = live.line.tolist()
    wrong = [
        (sequences[lines[at]].prompt, sequences[lines[at]].setting.as_dict(("temperature", *CUTS)))
        for at in differ
    ]
    # A logarithm's last bit decides where two tokens are all but level, or a token lies at a cut's bound.
    assert len(wrong) <= max(1, len(sequences) // 500), wrong


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("recorded", "compiled"),
    [(False, False), (True, False), (True, True)],
    ids=["step by step", "recorded", "recorded and compiled"],
)
def test_shared_prompts_have_the_logits_of_the_whole_text(config, recorded, compiled):
    model, exact = on_gpu(config), on_gpu(config, torch.float32)
    exact.load_state_dict(model.state_dict())
    written = [(0, [21, 22, 23]), (0, [21, 30, 31]), (1, [40, 41, 42]), (2, [50, 51, 52]), (0, [24, 25, 26])]
    place, zero = torch.tensor([0, 3, 1, 2, 4]).cuda(), torch.tensor([0, 0]).cuda()
    with torch.inference_mode():
        _, rows = prefill(model, PROMPTS, 8, [30, 10, 10], Workspace(compile=compiled))
        assert isinstance(rows, Shared)
        assert isinstance(rows.buffers.store, FlashStore)
        if not recorded:
            rows.buffers.recorded = []
        move = (zero, torch.tensor([3, 4]).cuda())
        for step in range(3):
            new = torch.tensor([tokens[step] for _, tokens in written]).cuda()
            logits = rows.advance(16, *move, place, new)[place].float()
            move = (place[:0], place[:0])
        whole = [torch.tensor([PROMPTS[p] + tokens]).cuda() for p, tokens in written]
        wanted = torch.cat([exact(ids).logits[:, -1] for ids in whole])
        usual = torch.cat([model(ids).logits[:, -1] for ids in whole]).float()
    error, expected = ((x - wanted).norm() / wanted.norm() for x in (logits, usual))
    assert error < 1.5 * expected + 1e-3


@pytest.mark.parametrize("config", CONFIGS)
def test_a_used_workspace_changes_no_token(config):
    model, workspace, options = on_gpu(config), Workspace(), {"eos": [3]}
    fresh = decode(model, PROMPTS, grid(), **options).tokens
    decode(model, PROMPTS[::-1], grid(), workspace=workspace, **options)
    again = decode(model, PROMPTS, grid(), workspace=workspace, **options).tokens
    assert again == fresh
    few = [s for s in grid() if s.prompt == 1]
    small = decode(model, PROMPTS, few, workspace=workspace, **options).tokens
    same = sum(
        a == b
        for a, b in zip(small, [t for s, t in zip(grid(), fresh, strict=True) if s.prompt == 1], strict=True)
    )
    assert same > 0.5 * len(few)  # 16 bits: another batch, other last bits


def waits(model, length, sizes) -> tuple[int, int]:
    """How often a decode of ``length`` steps waits for the GPU, and its steps."""
    workspace, options = Workspace(), {"eos": [3]}
    decode(model, PROMPTS, grid(length=length, sizes=sizes), workspace=workspace, **options)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as seen:
        rows = decode(model, PROMPTS, grid(length=length, sizes=sizes), workspace=workspace, **options).rows
    return sum(e.count for e in seen.key_averages() if e.key == "cudaStreamSynchronize"), len(rows)


@pytest.mark.parametrize("sizes", [(3,), (0, 3)], ids=["one form a row", "several forms a row"])
@pytest.mark.parametrize("config", CONFIGS)
def test_a_step_waits_for_the_gpu_once(config, sizes):
    model = on_gpu(config)
    (few, short), (many, long) = waits(model, 10, sizes), waits(model, 40, sizes)
    assert long - short == 30
    assert many - few <= 30


def test_prompts_with_one_row_each_end_at_different_steps():
    """Greedy sequences alone: a prompt never has more than one row, and the batch shrinks below their number."""
    model = on_gpu(MistralConfig(**SMALL, head_dim=128, sliding_window=None), torch.bfloat16)
    prompts = [[5 + n, 6, 7 + n] for n in range(40)]
    eos = list(range(3, 320, 12))
    alone = [decode(model, [p], [sequence_of(0, 0.0, 0, 1.0, 20)], eos=eos).tokens[0] for p in prompts]
    workspace = Workspace()
    for some in (40, 37):
        sequences = [sequence_of(n, 0.0, 0, 1.0, 20) for n in range(some)]
        together = decode(model, prompts[:some], sequences, eos=eos, workspace=workspace).tokens
        assert sum(a == b for a, b in zip(together, alone, strict=False)) > 0.8 * some


def test_another_unmerged_adapter_is_recorded_anew(recwarn):
    from peft import LoraConfig, get_peft_model

    workspace = Workspace()
    for alpha in (8, 64):
        model = on_gpu(MistralConfig(**SMALL, head_dim=128, sliding_window=None))
        adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=alpha, init_lora_weights=False)).eval()
        torch.manual_seed(1)
        used = decode(adapted, PROMPTS, grid(), eos=[3], workspace=workspace).tokens
        assert used == decode(adapted, PROMPTS, grid(), eos=[3]).tokens
    assert not [w for w in recwarn if "CUDA graph" in str(w.message)]


def test_float32_on_a_gpu_equals_the_cpu():
    config = MistralConfig(**SMALL, sliding_window=None)
    model = on_gpu(config, torch.float32)
    options = {"eos": [3]}
    there = decode(model, PROMPTS, grid(), **options).tokens
    here = decode(model.cpu(), PROMPTS, grid(), **options).tokens
    assert sum(a == b for a, b in zip(there, here, strict=True)) > 0.9 * len(here)


def knobs_of_rows(length=14):
    """Searches, contrast, penalties and a constraint beside free draws, for each prompt: all that makes forms of rows."""
    more = [
        {"num_beams": 3}, {"num_beams": 4, "length_penalty": 0.5}, {"num_beams": 2, "contrast": 0.7},
        {"contrast": 0.7}, {"repetition_penalty": 1.3}, {"presence_penalty": 0.5, "frequency_penalty": 0.4},
        {"no_repeat_ngram_size": 2}, {"contrast": 1.5, "repetition_penalty": 1.1, "min_p": 0.1}, {},
    ]  # fmt: skip
    made = [
        sequence_of(prompt, temperature, 0, 1.0, length, noise_key(1, f"poem-{prompt}", sample), **knobs)
        for prompt in range(3)
        for knobs in more
        for temperature, sample in ([(0, 0)] if "num_beams" in knobs else [(0, 0), (0.8, 0), (0.8, 1)])
    ]
    rhythm = Rhythm()
    return made + [replace(sequence, constraint=rhythm) for sequence in made]


def trained(model):
    """The model as it might be after a training."""
    changed = copy.deepcopy(model)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return changed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("config", CONFIGS)
def test_searches_contrast_penalties_and_constraints_are_recorded_as_they_are_step_by_step(
    config, dtype, monkeypatch
):
    base = on_gpu(config, dtype)
    model, workspaces = trained(base), (Workspace(), Workspace())

    def texts(own, other):
        options = {"eos": [63], "workspace": own, "other": Reader(base, other)}
        return decode(model, PROMPTS, knobs_of_rows(), **options).tokens

    recorded = texts(*workspaces)
    assert texts(*workspaces) == recorded  # the second time from what the first recorded
    monkeypatch.setattr(batch._Buffers, "run", batch._Buffers._forward)
    assert texts(Workspace(), Workspace()) == recorded
    held = recorded[len(recorded) // 2 :]
    assert all(len(text) == 8 and text[-1] == 63 and set(text[1:7:2]) <= {7, 9} for text in held)


def test_a_gpu_without_kernels_writes_what_one_with_them_writes(monkeypatch):
    """In float32, which attends by matrix products either way; as on a T4."""
    model = on_gpu(MistralConfig(**SMALL, sliding_window=None), torch.float32)
    texts = decode(model, PROMPTS, grid(), eos=[63]).tokens
    for module in (sampler, shared_prefix):
        monkeypatch.setattr(module, "has_kernels", lambda device: False)
    without = decode(model, PROMPTS, grid(), eos=[63]).tokens
    assert sum(a == b for a, b in zip(texts, without, strict=True)) > 0.95 * len(texts)


def test_searches_contrast_penalties_and_constraints_in_float32_are_the_cpus():
    base = on_gpu(MistralConfig(**SMALL, sliding_window=None), torch.float32)
    model = trained(base)
    texts = []
    for device in ("cuda", "cpu"):
        base, model = base.to(device), model.to(device)
        texts.append(
            decode(model, PROMPTS, knobs_of_rows(), eos=[63], other=Reader(base, Workspace())).tokens
        )
    there, here = texts
    # The two devices sum in another order: where two texts are all but level, one of them may win on either.
    assert sum(a == b for a, b in zip(there, here, strict=True)) > 0.95 * len(here)
