"""Docstrings as Markdown: they are written to be read in a terminal, in a little reStructuredText."""

from __future__ import annotations

import re
from typing import Any

import griffe

import reprune

ROLE = re.compile(r":(?:func|class|meth|mod|attr|exc|data):`~?([\w.]+)`")
SECTIONS = ("Args:", "Returns:", "Raises:", "Yields:", "Attributes:")
RULE = re.compile(r"=+( +=+)+")


class Markdown(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """Roles, literal blocks, simple tables and definition lists."""
    text = ROLE.sub(lambda found: role(found[1]), text)
    lines = text.splitlines()
    done: list[str] = []
    section = False
    while lines:
        line = lines.pop(0)
        if line and not line[0].isspace():
            section = line in SECTIONS
        if line == "Returns:":  # as text: a colon in it does not end a type
            done += ["**Returns:**", "", *block(lines), ""]
        elif RULE.fullmatch(line):
            done += table(line, lines)
        elif line.endswith("::") and not section:
            done += [line.removesuffix("::") + ("" if line.endswith(" ::") else ":"), "", *literal(lines)]
        elif not section and starts_definition(line, lines):
            first, *more = block(lines)
            done += ["", line, f":   {first}", *(f"    {text}" for text in more), ""]
        else:
            done.append(line)
    return "\n".join(done)


def role(name: str) -> str:
    """A link to a public name, else code."""
    last = name.removeprefix("reprune.")
    if last in reprune.__all__:
        return f"[`{last}`][reprune.{last}]"
    return f"`{name}`"


def starts_definition(line: str, following: list[str]) -> bool:
    """Whether an indented line follows this one directly, which is no bullet of a list."""
    plain = bool(line) and not line[0].isspace() and line[0] not in "-*" and not line.endswith(":")
    return plain and bool(following) and following[0].startswith("    ")


def block(lines: list[str]) -> list[str]:
    """The indented block that follows, taken from ``lines``."""
    taken: list[str] = []
    while lines and (not lines[0].strip() or lines[0].startswith("    ")):
        taken.append(lines.pop(0).removeprefix("    "))
    return "\n".join(taken).strip("\n").splitlines()


def literal(lines: list[str]) -> list[str]:
    """The indented block that follows as Python code."""
    return ["```python", *block(lines), "```", ""]


def table(rule: str, lines: list[str]) -> list[str]:
    """A simple table without a head, its lines taken from ``lines``."""
    starts = [found.start() for found in re.finditer("=+", rule)]
    rows = ["", "| " * len(starts) + "|", "|---" * len(starts) + "|"]
    while lines and not RULE.fullmatch(lines[0]):
        line = lines.pop(0)
        cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        rows.append("| " + " | ".join(cells) + " |")
    lines[:1] = []
    return [*rows, ""]
