"""Metrics that a task file may list by name.

In: a name, its options, and the unit in which texts are counted. Out: ``Metric``s. Where an example has several
references the best of them counts; sacrebleu's own counts are taken there, and with its other tokenizers.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from rapidfuzz.distance import LCSseq

from tangeval.core.errors import TangevalError
from tangeval.metrics import bleu, chrf, copying, diversity, likelihood
from tangeval.metrics.base import Metric, Texts
from tangeval.metrics.ngrams import lengths, share
from tangeval.tasks.declared.rhymes import BOOKS, rhyming

Units = Callable[[str], str]


def _best(metric: Metric) -> Metric:
    """The metric of the reference of each example that suits the text best."""

    def compute(texts: Texts) -> Any:
        most = 1 + max((len(e.references) for e in texts.examples), default=0)
        values = [metric.compute(_beside(texts, place)) for place in range(most)]
        return np.maximum.reduce([np.asarray(own, float) for own in values])

    return replace(metric, compute=compute)


def _beside(texts: Texts, place: int) -> Texts:
    """The texts beside their example's reference of that place, or its last."""
    if place == 0:
        return texts
    made = texts.of_examples(lambda e: replace(e, reference=[e.reference, *e.references][: place + 1][-1]))
    return Texts(texts.written, made, texts.finish_reasons, texts.normalise, texts.training)


def _exact(texts: Texts) -> list[bool]:
    return [text == reference for text, reference in zip(texts.compared, texts.references, strict=True)]


def _rouge_l(units: Units) -> Callable[[Texts], Any]:
    """ROUGE-L's F1 (Lin 2004): of the longest common subsequence, in per cent as BLEU."""

    def compute(texts: Texts) -> Any:
        pairs = zip(texts.compared, texts.references, strict=True)
        both = [(units(text), units(reference)) for text, reference in pairs]
        common = np.array([LCSseq.similarity(text, reference) for text, reference in both])
        return 100 * share(2 * common, np.array([len(text) + len(reference) for text, reference in both]))

    return compute


def _length_ratio(texts: Texts) -> Any:
    return share(lengths(texts.compared), lengths(texts.references))


def _chrf(texts: Texts) -> Any:
    """Without white space, as sacrebleu has it."""
    own = Texts(
        texts.written, texts.examples, texts.finish_reasons, lambda t: "".join(texts.normalise(t).split())
    )
    return chrf.CHRF.compute(own)


def _rhyme(options: Mapping[str, Any]) -> Metric:
    """Lines that rhyme by one of ``rhymes.BOOKS``: together, or with the end of a field (``from``)."""
    book, field = str(options.get("groups", "pingshui")), str(options.get("from", "")).removeprefix("fields.")
    if book not in BOOKS:
        raise TangevalError(
            f"metrics: rhyme: groups: {book} is no book of rhymes; there are {', '.join(BOOKS)}"
        )

    def compute(texts: Texts) -> list[float]:
        given = [dict(example.fields)[field] if field else None for example in texts.examples]
        return [rhyming(text, book, own) for text, own in zip(texts.written, given, strict=True)]

    return _text("rhyme", "lines that rhyme", "押韻", compute, share=True)


def _bleu(tokenize: str) -> Metric:
    """BLEU by one of sacrebleu's tokenizers, of one reference or several; ours is the same and faster of characters."""
    from sacrebleu.metrics import BLEU

    try:
        counted = BLEU(tokenize=tokenize, effective_order=True)  # or it warns; its counts are the same
    except Exception as error:
        why = " ".join(str(error).split()) if tokenize in BLEU.TOKENIZERS else ", ".join(BLEU.TOKENIZERS)
        raise TangevalError(f"metrics: bleu: tokenize: {tokenize} cannot be had: {why}") from None

    def compute(texts: Texts) -> Any:
        if tokenize == "char" and not any(e.references for e in texts.examples):
            return bleu.BLEU.compute(texts)
        wanted = texts.of_examples(lambda e: [texts.normalise(r) for r in (e.reference, *e.references)])
        found = [counted.sentence_score(t, r) for t, r in zip(texts.compared, wanted, strict=True)]
        return np.array([[*s.counts, *s.totals, s.ref_len] for s in found])

    orders = range(1, bleu.ORDERS + 1)
    counts = (*(f"bleu_match_{n}" for n in orders), *(f"bleu_{n}grams" for n in orders), "bleu_reference")
    label = bleu.BLEU.label if tokenize == "char" else dict.fromkeys(("en", "zh"), f"BLEU ({tokenize})")
    return replace(bleu.BLEU, label=label, compute=compute, counts=counts, rarest=counts[bleu.ORDERS - 1])


def _over(metric: Metric, units: Units) -> Metric:
    """A metric of samples, counted in units."""
    return replace(
        metric, compute=lambda sets: metric.compute([[units(text) for text in own] for own in sets])
    )


def tokenizer(options: Mapping[str, Any], *, words: bool) -> str:
    """Return which of sacrebleu's tokenizers BLEU takes."""
    return str(options.get("tokenize", "13a" if words else "char"))


def make(name: str, options: Mapping[str, Any], units: Units, *, words: bool) -> list[Metric]:
    """Return the metrics that a name stands for.

    Raises:
        TangevalError: there is none of that name, or it takes no such option.
    """
    if unknown := options.keys() - _OPTIONS.get(name, set()):
        raise TangevalError(f"metrics: {name}: {min(unknown)} is no option of it")
    if name == "bleu":
        return [_bleu(tokenizer(options, words=words))]
    if name == "rhyme":
        return [_rhyme(options)]
    if name not in NAMES:
        raise TangevalError(
            f"metrics: there is no {name}; there are {', '.join([*_OPTIONS, *NAMES])}, and your own as file.py:name"
        )
    return NAMES[name](units)


def _text(name: str, en: str, zh: str, compute: Any, better: Any = "high", **kind: Any) -> Metric:
    return Metric(name, {"en": en, "zh": zh}, better, headline=True, compute=compute, **kind)


#: Metrics that take options, and which.
_OPTIONS = {"bleu": {"tokenize"}, "rhyme": {"groups", "from"}}
NAMES: dict[str, Callable[[Units], list[Metric]]] = {
    "chrf": lambda units: [_best(replace(chrf.CHRF, compute=_chrf))],
    "rouge_l": lambda units: [_best(_text("rouge_l", "ROUGE-L", "ROUGE-L", _rouge_l(units), most=100.0))],
    "exact": lambda units: [_best(_text("exact", "exact", "完全相同", _exact, share=True))],
    "length_ratio": lambda units: [
        _text("length_ratio", "length ÷ reference's", "長度比", _length_ratio, ranks=False)
    ],
    "perplexity": lambda units: [likelihood.REFERENCE_NLL, likelihood.TOKEN_NLL],
    "distinct": lambda units: [_over(diversity.DISTINCT_1, units), _over(diversity.DISTINCT_2, units)],
    "self_bleu": lambda units: [_over(diversity.SELF_BLEU, units)],
    "unique": lambda units: [diversity.UNIQUE],
    "copied": lambda units: [copying.TRAIN_OVERLAP],
}
