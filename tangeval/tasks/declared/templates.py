"""Templates of a task file: jinja2, cut down to what puts fields into text.

In: a template's text and the fields that it may name. Out: a function of a record's fields. A loop, an attribute, a
call or sum is refused when the file is read, so that what a template makes is as long as its fields.
"""

from collections.abc import Callable, Mapping, Set

from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tangeval.core.errors import TangevalError

_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.CondExpr, nodes.Compare,
    nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Filter,
)  # fmt: skip
_FILTERS = {"trim", "lower", "upper", "title", "capitalize", "length", "first", "last"}
_environment = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
)
_environment.globals.clear()  # range, dict and others: a prompt would have an address in it


def _is_text(node: nodes.Node) -> bool | None:
    """Whether a side of a comparison is text, as fields are; None where it is neither text nor number."""
    if isinstance(node, nodes.Const):
        return isinstance(node.value, str)
    return node.name != "length" if isinstance(node, nodes.Filter | nodes.Name) else None


def _refuse(node: nodes.Node, where: str) -> None:
    """Raise ``TangevalError`` for what a template may not have, and for a text that is compared with a number."""
    name = getattr(node, "name", "")
    if isinstance(node, nodes.Compare):
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if {True, False} <= set(map(_is_text, sides)):
            raise TangevalError(
                f"{where}, line {node.lineno}: text is compared with a number; fields are text: '5'"
            )
    if not isinstance(node, _ALLOWED):
        what = type(node).__name__.lower()
    elif isinstance(node, nodes.Filter) and name not in _FILTERS:
        what = f"the filter {name}"
    elif name == "self":
        what = "self"
    else:
        return
    raise TangevalError(
        f"{where}, line {node.lineno}: {what} is not taken; a template has fields, if, and the filters "
        f"{', '.join(sorted(_FILTERS))}"
    )


def template(text: str, known: Set[str], where: str) -> Callable[[Mapping[str, str]], str]:
    """Return what renders ``text``; ``known`` are the fields that there are.

    Raises:
        TangevalError: naming ``where`` and the template's line: it is none, names another field, or does more than to
            put fields into text.
    """
    try:
        tree = _environment.parse(text)
        for node in tree.find_all(nodes.Node):
            _refuse(node, where)
        unknown = meta.find_undeclared_variables(tree) - known
        ready = _environment.from_string(text)
    except TemplateError as error:
        raise TangevalError(f"{where}, line {getattr(error, 'lineno', 1)}: {error.message}") from None
    if unknown:
        line = next(n.lineno for n in tree.find_all(nodes.Name) if n.name in unknown)
        raise TangevalError(
            f"{where}, line {line}: there is no field {min(unknown)}; the data have {', '.join(sorted(known))}"
        )

    def rendered(fields: Mapping[str, str]) -> str:
        try:
            return ready.render(fields)
        except TemplateError as error:
            raise TangevalError(f"{where}: {error.message}, for {dict(fields)!r:.80}") from None

    return rendered


def named(text: str) -> set[str]:
    """Return the fields that a template names; none of one that cannot be read, which ``template`` says."""
    try:
        return set(meta.find_undeclared_variables(_environment.parse(text)))
    except TemplateError:
        return set()
