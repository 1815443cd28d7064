"""The claims of ``verdict.json`` in words, in either language.

In: what ``analysis.verdict`` found, and the task's metrics. Out: a question, its status and an answer each, and all of
it as Markdown. The sentences stand in ``tangeval/words``. Knows nothing of how a claim was tested.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tangeval.core.knobs import KNOB, written
from tangeval.core.untrusted import inert
from tangeval.core.words import label, say
from tangeval.metrics.base import Metrics

_NAMED = 5  # names of a list, and values of a range, that are told
#: What makes markup of a name: HTML, emphasis, code, a link or picture. An interval's brackets make none.
_MARKUP, _ESCAPED = re.compile(r"[<>*`\\]|\](?=\()"), r"\\\g<0>"


@dataclass(frozen=True)
class Said:
    """A claim in words: ``status`` is the claim's own, ``word`` says it."""

    question: str
    status: str
    word: str
    answer: str


@dataclass(frozen=True)
class Speaker:
    """What is needed to put claims into words: the task's metrics, whether it is verse, and the language."""

    metrics: Metrics
    verse: bool
    lang: str | None = None

    def all(self, verdict: Mapping[str, Any]) -> list[Said]:
        """Return the claims in words, in their order."""
        return [self._said(claim, verdict) for claim in verdict["claims"]]

    def basis(self, verdict: Mapping[str, Any]) -> str:
        """Return what the claims rest on, and what is assumed."""
        if not verdict["claims"]:
            return self._say("verdict.nothing")
        said = self._say("verdict.basis", n=verdict["poems"], split=self._say(f"split.{verdict['split']}"))
        names = self._names(verdict["assumed_unseen"])
        return f"{said} {self._say('verdict.assumed', names=names)}" if names else said

    def markdown(self, verdict: Mapping[str, Any]) -> str:
        """Return all of it as Markdown, to be pasted into a report."""
        parts = [
            f"**{each.question}** {f'({each.word}) ' * bool(each.word)}{_MARKUP.sub(_ESCAPED, inert(each.answer))}"
            for each in self.all(verdict)
        ]
        return "\n\n".join([f"# {self._say('verdict.title')}", *parts, self.basis(verdict)]) + "\n"

    def _say(self, key: str, **values: object) -> str:
        kind = "verse" if self.verse else "text"
        about = {"noun": f"noun.{kind}", "random_ones": f"random.{kind}", "people": f"people.{kind}"}
        return say(key, self.lang, **{name: say(word, self.lang) for name, word in about.items()} | values)

    def _said(self, claim: Mapping[str, Any], verdict: Mapping[str, Any]) -> Said:
        question, status, values = claim["question"], claim["status"], claim["values"]
        answer = getattr(self, f"_{question}")(claim["key"], values, verdict, status)
        word = "" if question == "open" else self._say(status)  # which is itself about statuses
        return Said(self._say(f"verdict.{question}"), status, word, answer)

    # Answers

    def _helped(self, key: str, values: Mapping[str, Any], _: Any, __: str) -> str:
        told = {
            side: self._list(map(self._change, values[side]), "semicolon") for side in ("better", "worse")
        }
        metrics = self._list(map(self.metric, values["metrics"]))
        return self._say(f"verdict.helped.{key}", checkpoint=values["checkpoint"], metrics=metrics, **told)

    def _checkpoint(self, key: str, values: Mapping[str, Any], _: Any, status: str) -> str:
        step, metric = values["from_step"], values["metric"]
        told = {
            "checkpoint": values["checkpoint"], "metric": self.metric(metric), "margin": values["margin"],
            "value": _number(values["value"]), "ties": self._names(values["ties"]),
            "below": self._say("verdict.checkpoint.below", worse=self._names(values["worse"])) if values["worse"] else "",
            "from": self._say("verdict.checkpoint.from", step=step) if step is not None else "",
        }  # fmt: skip
        return self._say(f"verdict.checkpoint.{key}{'.equal' * (status == 'no_difference')}", **told)

    def _settings(self, key: str, values: Mapping[str, Any], verdict: Mapping[str, Any], _: str) -> str:
        harm: dict[tuple[str, str, str, bool], list[str]] = {}
        for row in values["harm"]:
            worse = self._values(row["knob"], row["worse"], row["values"])
            best = self.value(row["knob"], row["best"])
            harm.setdefault((row["knob"], worse, best, len(row["worse"]) > 1), []).append(self._effect(row))
        told = [
            self._say(f"verdict.settings.{'worst' if several else 'harm'}", knob=self._knob(knob), worse=worse, best=best, effects=self._list(effects))
            for (knob, worse, best, several), effects in harm.items()
        ]  # fmt: skip
        knobs = self._list(map(self._knob, values["quiet"]))
        chosen = verdict.get("chosen", {})  # older verdicts and slides have none
        harmed = {row["knob"] for row in values["harm"] if chosen.get(row["knob"]) in row["worse"]}
        taken = self._list(
            f"{self._knob(knob)} {self.value(knob, chosen[knob])}" for knob in chosen if knob in harmed
        )
        return self._say(
            f"verdict.settings.{key}",
            harm=self._list(told, "semicolon"),
            quiet=self._say("verdict.settings.quiet", knobs=knobs) if knobs else "",
            chosen=self._say("verdict.settings.chosen", values=taken, by=self.metric(verdict["chosen_by"]))
            if taken
            else "",
            knobs=knobs,
            metrics=self._list(map(self.metric, values["metrics"])),
        )

    def _random(self, key: str, values: Mapping[str, Any], _: Any, __: str) -> str:
        def told(rows: Sequence[Mapping[str, Any]]) -> str:
            return self._list(map(self._way, rows), "semicolon")

        rows = values["far"]
        better, worse = ([row for row in rows if row["better"] == sign] for sign in (1, -1))
        sides = {"better": told(better), "worse": told(worse), "all": told(rows)}
        return self._say(f"verdict.random.{key}", checkpoint=values["checkpoint"], **sides)

    def _open(self, key: str, values: Mapping[str, Any], verdict: Mapping[str, Any], _: str) -> str:
        items = [
            self._say(
                f"verdict.open.{row['question']}", a=self.value(row["knob"], row["a"]), b=self.value(row["knob"], row["b"]),
                knob=self._knob(row["knob"]), metric=self.metric(row["metric"]),
                needed=f"{round(row['needed'], 2 - len(str(row['needed']))):,}",  # a plan is no more exact
            )
            for row in values["open"]
        ]  # fmt: skip
        return self._say(f"verdict.open.{key}", items=self._list(items, "semicolon"), n=verdict["poems"])

    # Parts

    def _change(self, row: Mapping[str, Any]) -> str:
        before, after = _number(row["value_b"]), _number(row["value_a"])
        return self._say(
            "verdict.change", metric=self.metric(row["metric"]), before=before, after=after, **_interval(row)
        )

    def _effect(self, row: Mapping[str, Any]) -> str:
        """What the worse value does, less the best one."""
        turned = row["a"] == row["best"]
        sign = -1 if turned else 1
        low, high = (row["high"], row["low"]) if turned else (row["low"], row["high"])
        ends = {name: None if end is None else sign * end for name, end in (("low", low), ("high", high))}
        shown = _interval({"difference": sign * row["difference"], **ends})
        return self._say("verdict.settings.effect", metric=self.metric(row["metric"]), **shown)

    def _way(self, row: Mapping[str, Any]) -> str:
        told = {
            name: _number(row[of])
            for name, of in (("value", "value_a"), ("random", "value_b"), ("reference", "reference"))
        }
        return self._say(
            "verdict.random.way", metric=self.metric(row["metric"]), way=_percent(row["way"]), **told
        )

    def metric(self, name: str) -> str:
        """Return a metric's label, without its unit or explanation."""
        told = label(self.metrics[name].label, self.lang)
        return told.partition(" (")[0].partition("（")[0].partition(":")[0]

    def _knob(self, name: str) -> str:
        return label(KNOB[name].label, self.lang) if name else ""

    def value(self, knob: str, value: str) -> str:
        """Return a knob's value as a reader is told it."""
        cut = knob and KNOB[knob].kind not in ("scale", "length") and value == written(KNOB[knob].off)
        return self._say("off") if cut else value

    def _values(self, knob: str, some: Sequence[str], every: Sequence[str]) -> str:
        """The values, or the range that they are of ``every`` one, where there are many."""
        first, last = every.index(some[0]), every.index(some[-1])
        if len(some) > 2 and list(some) == list(every[first : last + 1]):
            return self._say("verdict.settings.range", first=some[0], last=some[-1])
        return self._list([self.value(knob, value) for value in some])

    def _names(self, names: Sequence[str]) -> str:
        told = self._list(names[:_NAMED])
        return self._say("list.more", names=told, n=len(names) - _NAMED) if len(names) > _NAMED else told

    def _list(self, parts: Any, between: str = "comma") -> str:
        return self._say(f"list.{between}").join(parts)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 100 else f"{value:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if abs(share) >= 0.1 else f"{round(100 * share, 1) + 0:g}"  # -0 + 0 is 0


def _interval(row: Mapping[str, Any]) -> dict[str, str]:
    apart = (row["low"] or 0) * (row["high"] or 0) > 0
    return {name: _signed(row[name], apart=apart) for name in ("difference", "low", "high")}


def _signed(value: float | None, *, apart: bool) -> str:
    """Two decimals; one digit of an end that would be read as 0 where the interval lies ``apart`` from it."""
    if value is None:
        return "–"
    return f"{value:+.2f}" if round(value, 2) else f"{value:+.1g}" if apart and value else "0.00"
