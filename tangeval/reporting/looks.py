"""How lines look, in pictures and on the page: one table.

In: nothing. Out: colours and dashes. Knows neither matplotlib nor scripts; both have words for these dashes.
"""

from tangeval.core.types import RANDOM, REFERENCE

#: The lines of the baselines.
DASHES = {RANDOM: "dotted", REFERENCE: "dashed"}
#: The base model's colour, and that of checkpoints as training goes on; the page's dark theme has lighter ones.
COLOURS = {"base": "#77706a", "early": "#b8741a", "middle": "#4b842c", "late": "#27457f"}
