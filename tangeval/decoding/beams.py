"""Beam search: which of a search's texts go on, with which tokens, and what it found.

In: the log-probabilities of distinct rows and, for each beam, the row that it lies on. Out: each beam's parent and next token,
and, once a search has ended, its best hypothesis. Knows nothing of models and caches, and of other sequences.

Scores, their order and the end of a search are those of transformers' ``generate(num_beams=B, do_sample=False)`` with
its ``early_stopping=False``: the 2·B best continuations are looked at (one more B for each further token that ends a
text), those of the best B that end are hypotheses, and log-probability ÷ tokens^``length_penalty`` says which is best.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from tangeval.core.knobs import Setting

_NONE = -1e9  # added to the score of what is no candidate; transformers' own
_AT_ONCE = 2**24  # numbers in the largest tensors that are made at a time


def widths(settings: Iterable[Setting]) -> list[int]:
    """Return the numbers of beams that searches among ``settings`` have, rising."""
    return sorted({setting.num_beams for setting in settings} - {1})


def lines_of(setting: Setting) -> int:
    """Return how many lines of output a setting needs: one; a search one for each beam, and one for its best hypothesis."""
    beams: int = setting.num_beams
    return beams + 1 if beams > 1 else 1


class Searches:
    """The searches of one decode, by the lines of ``output`` ``[lines, tokens]`` that they write on.

    A search of B beams has B lines that follow one another, and after them that of its best hypothesis.
    """

    def __init__(self, output: Tensor, settings: Mapping[int, Setting], stop: Tensor) -> None:
        """``settings`` are those of all sequences by their first lines, ``stop`` the tokens that end a text."""
        self.output, self.stop, self.widths = output, stop, widths(settings.values())
        self.score = torch.full((len(output),), _NONE, device=output.device)
        self.penalty = torch.zeros(len(output), dtype=torch.float64, device=output.device)
        for line, setting in settings.items():
            if setting.num_beams > 1:
                self.score[line] = 0  # of its beams, all on one row, the first alone counts at first
                self.penalty[line] = setting.length_penalty
        #: The scores of the best hypotheses, falling, and which of them there are.
        self.found = torch.full_like(self.score, _NONE)
        self.ended = torch.zeros_like(self.score, dtype=torch.bool)

    def choose(
        self, scores: Tensor, row: Tensor, line: Tensor, limit: Tensor, counts: Sequence[int], step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return each beam's parent row, its next token, and whether its search goes on: ``[S]``.

        ``scores`` ``[R, V]`` are log-probabilities. ``row``, ``line`` and ``limit`` (the most tokens of a text) are ``[S]``:
        the beams of a search stand side by side, searches in the order of ``widths``, and ``counts`` says how many
        beams there are of each.
        """
        rows, place = row.unique(return_inverse=True)
        best = _likeliest(scores, rows, min(self._kept(max(self.widths)), scores.shape[1]))
        chosen, token, going = row.clone(), torch.empty_like(row), torch.empty_like(row, dtype=torch.bool)
        begin = 0
        for width, count in zip(self.widths, counts, strict=True):
            part = slice(begin, begin + count)
            own = [x[part].view(-1, width) for x in (place, line, limit)]
            places, tokens, on = self._step(best, own[0], own[1], own[2], step)
            chosen[part], token[part] = rows[places].flatten(), tokens.flatten()
            going[part] = on.repeat_interleave(width)
            begin += count
        return chosen, token, going

    def _step(
        self, best: tuple[Tensor, Tensor], row: Tensor, line: Tensor, limit: Tensor, step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``choose`` for G searches of B beams: all are ``[G, B]`` but ``best``, ``[R, K]``, and which go on, ``[G]``."""
        keep = self._kept(line.shape[1])
        values, ids = (x[:, :keep] for x in best)
        total, place = (values[row] + self.score[line][..., None]).flatten(1).topk(keep)
        parent, rank = place // values.shape[1], place % values.shape[1]
        token = ids[row.gather(1, parent), rank]
        ends = torch.isin(token, self.stop) | (limit[:, :1] == step + 1)
        tokens = ((step + 1) ** self.penalty[line[:, :1]]).float()
        self._find(line, parent, token, ends, total / tokens, step)

        running, chosen = (total + ends * _NONE).topk(line.shape[1])
        parent, token = parent.gather(1, chosen), token.gather(1, chosen)
        none = running < _NONE / 2  # nothing goes on: it follows the best from now on, and is never found
        parent, token = (torch.where(none, of[:, :1], of) for of in (parent, token))
        self.output[line] = self.output[line.gather(1, parent)]
        self.score[line] = running
        worst = torch.where(self.ended[line], self.found[line].amin(dim=1, keepdim=True), _NONE)
        going = (running[:, :1] / tokens > worst).any(dim=1) & ~none[:, 0]
        return row.gather(1, parent), token, going

    def _find(
        self, line: Tensor, parent: Tensor, token: Tensor, ends: Tensor, score: Tensor, step: int
    ) -> None:
        """Take those of the first B continuations that end among the B best hypotheses; all are ``[G, K]`` but ``line``."""
        beams = line.shape[1]
        ends = ends & (torch.arange(ends.shape[1], device=ends.device) < beams)
        found = torch.cat([self.found[line], score + ~ends * _NONE], dim=1)
        self.found[line], chosen = found.topk(beams)
        self.ended[line] = torch.cat([self.ended[line], ends], dim=1).gather(1, chosen)
        first = chosen[:, :1] - beams  # the best of all, where it is new
        text = self.output[line.gather(1, parent.gather(1, first.clamp(min=0)))[:, 0]]
        text[:, step] = token.gather(1, first.clamp(min=0))[:, 0]
        last = line[:, -1] + 1
        self.output[last] = torch.where(first >= 0, text, self.output[last])

    def _kept(self, beams: int) -> int:
        """How many continuations are looked at, so that as many as there are beams go on."""
        return max(2, 1 + len(self.stop)) * beams


def _likeliest(scores: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest scores of each of ``rows`` ``[R]``, falling, and their tokens: ``[R, count]``."""
    found = [scores[some].topk(count) for some in rows.split(max(1, _AT_ONCE // scores.shape[1]))]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])
