"""Make tang-mini, the small base model that ships with tangeval, from chinese-poetry.

    python -m scripts.pretrain CHINESE_POETRY_FOLDER [--out tangeval/assets/tang-mini] [--hw5 hw5]

In: the unpacked npm package chinese-poetry, and HW5's data and the embedded sample, whose
test and validation poems are kept out. Out: a folder that ``from_pretrained`` loads, with a
model card of what was measured. Minutes on a GPU, hours on a CPU. Knows nothing of the
prompt: that is for fine-tuning to teach.
"""

import argparse
import math
import string
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.corpus import Poem, hold_out, is_regulated, leave_out, read, without_repeats
from tangeval.core.types import ASSETS
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.text import han

OUT = ASSETS / "tang-mini"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
PLAIN = string.digits + string.ascii_letters + string.punctuation + " \n\t" + "，。？！、；：「」《》"
#: The prompt's markers are a token each. Spelt out, ``T] `` would stand in the prompt twice, and
#: no_repeat_ngram_size 3 would forbid the space that every completion begins with.
MARKERS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
IGNORED = -100  #: the label of a token that is read and not learnt


@dataclass(frozen=True)
class Settings:
    """What decides the model, each with its option on the command line."""

    vocabulary: int = 8448  #: tokens; bitsandbytes' nf4 wants multiples of 64 here and in the layers' sizes
    hidden: int = 192
    inner: int = 512
    layers: int = 7
    heads: int = 3
    steps: int = 8000  #: at most
    tang: int = 2  #: how often each Tang poem is shown for every time that a Song poem is
    before: float = 0.3  #: share of the poems that noise stands before
    amid: float = 0.3  #: share of the poems that noise parts after the first couplet
    rate: float = 2e-3
    warmup: int = 300  #: steps
    decay: float = 0.1  #: of AdamW's weights
    rows: int = 128  #: a batch
    length: int = 256  #: tokens a row
    evaluate: int = 500  #: steps between looks at the poems held out
    patience: int = 4  #: looks without a gain before training stops
    held_out: int = 1000  #: Tang poems to stop by, and as many again to report on
    seed: int = 42


@dataclass(frozen=True)
class Corpus:
    """The poems to train on, those to stop by, those to report on, and how many were left out."""

    training: list[Poem]
    stopping: list[Poem]
    reporting: list[Poem]
    vocabulary: list[str]
    left_out: int  #: share a clause with a test or validation poem of HW5 or of the sample
    rare: int  #: have a character outside the vocabulary


def gather(folder: Path, hw5: str, settings: Settings) -> Corpus:
    """Read the corpus and keep out of it what evaluation must not have shown."""
    splits = [dataset.load(hw5, dataset.VALIDATION["hw5"]), dataset.load("sample")]
    secret = [e.input + e.reference for d in splits for s in ("test", "validation") for e in d.split(s)]
    everything = [poem for dynasty in ("tang", "song") for poem in read(folder, dynasty)]
    regulated = [p for p in everything if is_regulated(p) and len(p.text) + 2 <= settings.length]
    kept, left = leave_out(without_repeats(regulated), secret)
    needed = "".join(e.instruction + e.input + e.reference for d in splits for e in d.examples)
    vocabulary = choose_vocabulary(kept, needed, settings.vocabulary)
    tokens = set(vocabulary)
    known = [poem for poem in kept if tokens.issuperset(poem.text)]
    training, held = hold_out(known, 2 * settings.held_out)
    half = len(held) // 2
    return Corpus(training, held[:half], held[half:], vocabulary, len(left), len(kept) - len(known))


def choose_vocabulary(poems: list[Poem], needed: str, size: int) -> list[str]:
    """Return ``size`` tokens: special ones, ASCII, marks, every Han character of ``needed``, the commonest, markers.

    More where what must be in is more, fewer where the poems have no more.
    """
    tokens = dict.fromkeys([*SPECIAL.values(), *PLAIN, *sorted(set(han(needed)))])
    count = Counter(han("".join(poem.text for poem in poems)))
    common = [c for c, _ in sorted(count.items(), key=lambda item: (-item[1], item[0])) if c not in tokens]
    return [*tokens, *common[: max(0, size - len(tokens) - len(MARKERS))], *MARKERS]


def make_tokenizer(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a character or marker, that adds and removes nothing."""
    ids = {token: place for place, token in enumerate(vocabulary)}
    # BPE without merges leaves characters alone, and white space with them.
    core = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token=SPECIAL["unk_token"], fuse_unk=False))
    core.decoder = decoders.Fuse()
    core.add_tokens([AddedToken(marker, normalized=False) for marker in MARKERS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=False, model_max_length=1024, **SPECIAL
    )


def make_model(tokenizer: PreTrainedTokenizerFast, settings: Settings) -> LlamaForCausalLM:
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = LlamaConfig(
        vocab_size=math.ceil(len(tokenizer) / 64) * 64,
        hidden_size=settings.hidden,
        intermediate_size=settings.inner,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        **special,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**special)
    return model


class Rows(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Rows of whole documents without end: [length] ids and [length] labels.

    A row starts with a document, and later ones see those before them: a model that is going
    to find its poem behind a prompt must learn to leave alone what stands before a poem.
    """

    def __init__(self, poems: list[Poem], tokenizer: PreTrainedTokenizerFast, settings: Settings):
        self.settings, self.vocabulary = settings, len(tokenizer)
        self.bos, self.eos, self.pad = (
            np.array([i]) for i in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        )
        ids = tokenizer([poem.text for poem in poems], add_special_tokens=False)["input_ids"]
        self.poems = [np.array(poem, dtype=np.int32) for poem in ids]
        self.couplets = [sum(map(len, poem.clauses[:2])) + 2 for poem in poems]
        self.times = [settings.tang if poem.dynasty == "tang" else 1 for poem in poems]

    def noise(self, rng: np.random.Generator, share: float, most: int) -> np.ndarray:
        """Return nothing, or in ``share`` of the calls up to ``most`` ids, of plain characters or of all."""
        if rng.random() >= share:
            return np.array([], dtype=int)
        last = len(SPECIAL) + len(PLAIN) if rng.random() < 0.7 else self.vocabulary
        return rng.integers(len(SPECIAL), last, rng.integers(1, most + 1))

    def document(self, place: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and labels of a poem between BOS and EOS; noise around it is read and not learnt."""
        poem, couplet = self.poems[place], self.couplets[place]
        before = self.noise(rng, self.settings.before, 160)
        amid = self.noise(rng, self.settings.amid, 12)
        parts = [self.bos, before, poem[:couplet], amid, poem[couplet:], self.eos]
        labels = [
            part if learnt in (2, 4, 5) else np.full(len(part), IGNORED) for learnt, part in enumerate(parts)
        ]
        length = self.settings.length
        return np.concatenate(parts)[:length], np.concatenate(labels)[:length]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng, length = np.random.default_rng(self.settings.seed), self.settings.length
        order = np.repeat(np.arange(len(self.poems)), self.times)
        row, used = [], 0
        while True:
            for place in rng.permutation(order):
                document = self.document(place, rng)
                if used + len(document[0]) > length:
                    row.append((np.repeat(self.pad, length - used), np.full(length - used, IGNORED)))
                    yield tuple(
                        torch.from_numpy(np.concatenate(side)).long() for side in zip(*row, strict=True)
                    )
                    row, used = [], 0
                row.append(document)
                used += len(document[0])


@torch.inference_mode()
def nats(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, poems: list[Poem]) -> dict[str, float]:
    """Return nats per token of the poems after BOS alone: of characters and marks, of characters, of EOS."""
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    total, count = Counter(), Counter()
    poems = sorted(poems, key=lambda poem: len(poem.text))
    model.eval()
    for start in range(0, len(poems), 50):
        batch = poems[start : start + 50]
        texts = tokenizer([poem.text for poem in batch], add_special_tokens=False)["input_ids"]
        width = max(map(len, texts)) + 2
        rows = torch.tensor(
            [[bos, *t, eos, *[pad] * (width - 2 - len(t))] for t in texts], device=model.device
        )
        # Padding stands behind, where causal attention does not look: no mask is needed.
        logits = model(input_ids=rows[:, :-1]).logits.float()
        loss = cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none").cpu()
        for row, poem in zip(loss.tolist(), batch, strict=True):
            for character, value in zip([*poem.text, "</s>"], row, strict=False):
                kinds = ("eos",) if character == "</s>" else ("text", "han")[: 1 + bool(han(character))]
                for kind in kinds:
                    total[kind] += value
                    count[kind] += 1
    model.train()
    return {kind: total[kind] / count[kind] for kind in ("text", "han", "eos")}


def train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, corpus: Corpus, settings: Settings
) -> int:
    """Train until the steps are made or the poems to stop by gain no more; leave the best weights in the model.

    Returns the step they are from. Prints a line at each look at the poems to stop by.
    """
    cuda = model.device.type == "cuda"
    loader = DataLoader(Rows(corpus.training, tokenizer, settings), settings.rows, num_workers=int(cuda))
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1]},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, settings.rate, betas=(0.9, 0.95), weight_decay=settings.decay, fused=cuda
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / settings.warmup, 1 - step / settings.steps)
    )
    best, best_step, weights, started = math.inf, 0, {}, time.monotonic()
    for step, (ids, labels) in enumerate(loader, 1):
        with torch.autocast(model.device.type, torch.bfloat16, enabled=cuda):
            loss = model(input_ids=ids.to(model.device), labels=labels.to(model.device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % settings.evaluate and step < settings.steps:
            continue
        held_out = nats(model, tokenizer, corpus.stopping)["text"]
        if held_out < best:
            best, best_step = held_out, step
            weights = {name: value.clone() for name, value in model.state_dict().items()}
        seconds = time.monotonic() - started
        print(
            f"step {step}/{settings.steps}  {seconds:.0f} s  loss {loss:.3f}  held out {held_out:.4f}",
            flush=True,
        )
        if step == settings.steps or step - best_step >= settings.patience * settings.evaluate:
            break
    model.load_state_dict(weights)
    return best_step


CARD = """# tang-mini

A small base model, to try tangeval with in minutes on a CPU: a Llama of {parameters:,} parameters with one token a character (and one for each marker of HW5's prompt), which writes regulated verse. It has not seen the task: fine-tuning teaches that. It writes couplets worth reading and no sense beyond them.

| | |
| --- | --- |
| architecture | Llama: {settings.layers} layers of {settings.hidden}, {settings.inner} inside, {settings.heads} heads, tied embeddings, bfloat16; every size a multiple of 64, which bitsandbytes' nf4 needs |
| vocabulary | {vocabulary:,} tokens: ASCII, the marks of verse, the four markers of HW5's prompt, every Han character of HW5's files, and the commonest of the corpus; text survives encoding and decoding unchanged |
| data | regulated poems (four clauses or more, all of five or all of seven characters, at most {longest} characters and marks in all) of 全唐詩 and 全宋詩 in the npm package [chinese-poetry](https://www.npmjs.com/package/chinese-poetry) (MIT): {training:,} poems, {tang:,} of them Tang; the poems are in the public domain |
| left out | {left_out:,} poems that share a clause, variants folded, with HW5's test or validation split or with the embedded sample's; {rare:,} with a character outside the vocabulary; {held_out:,} Tang poems that share no clause with any other, held out: half to stop training by, half for the figures below |
| trained | {best_step:,} steps of {settings.rows} rows of {settings.length} tokens, in {minutes:.1f} minutes on {hardware} |
| held-out Tang poems | **{figures[text]:.3f} nats per token** (characters and marks, after BOS alone, EOS not counted), {figures[han]:.3f} per Han character, {figures[eos]:.4f} per EOS; measured on the bfloat16 weights in float32 |
| licence | MIT |

HW5's training poems, and the sample's, may be among the poems it was trained on, as any LLM's pre-training may have held them; the test and validation poems of both are not.

Some poems were shown with random text before them, or after their first couplet, which the model read and did not learn: so a prompt does not throw it off.

Made by `{command}`.
"""


def save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, corpus: Corpus, out: Path
) -> dict[str, float]:
    """Write the model in bfloat16 and its tokenizer; return nats on the poems to report on, as saved."""
    device = model.device
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return nats(
        LlamaForCausalLM.from_pretrained(out, dtype=torch.float32).to(device), tokenizer, corpus.reporting
    )


def pretrain(folder: Path, out: Path, hw5: str, settings: Settings) -> dict[str, float]:
    """Read, train, save, measure, and write the model card; return the figures measured."""
    corpus = gather(folder, hw5, settings)
    print(f"{len(corpus.training):,} poems; {corpus.left_out} left out, {corpus.rare} with rare characters")
    torch.manual_seed(settings.seed)
    tokenizer = make_tokenizer(corpus.vocabulary)
    model = make_model(tokenizer, settings).to("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{model.num_parameters():,} parameters on {model.device}", flush=True)
    started = time.monotonic()
    best_step = train(model, tokenizer, corpus, settings)
    minutes = (time.monotonic() - started) / 60
    figures = save(model, tokenizer, corpus, out)
    changed = [f for f in fields(Settings) if getattr(settings, f.name) != f.default]
    options = "".join(f" --{f.name.replace('_', '-')} {getattr(settings, f.name)}" for f in changed)
    text = CARD.format(
        settings=settings,
        figures=figures,
        longest=settings.length - 2,
        vocabulary=len(tokenizer),
        parameters=model.num_parameters(),
        training=len(corpus.training),
        tang=sum(poem.dynasty == "tang" for poem in corpus.training),
        held_out=len(corpus.stopping) + len(corpus.reporting),
        left_out=corpus.left_out,
        rare=corpus.rare,
        best_step=best_step,
        minutes=minutes,
        hardware=torch.cuda.get_device_name() if model.device.type == "cuda" else "a CPU",
        command=f"python -m scripts.pretrain CHINESE_POETRY_FOLDER{options}",
    )
    (out / "README.md").write_text(text, "utf-8")
    print(f"{out}: {figures}, best at step {best_step}, {minutes:.1f} minutes")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.pretrain", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="the unpacked npm package chinese-poetry")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--hw5", default="hw5", help="HW5's folder (default: where tangeval finds it)")
    for field in fields(Settings):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default
        )
    options = parser.parse_args()
    settings = Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
    pretrain(options.folder, options.out, options.hw5, settings)


if __name__ == "__main__":
    main()
