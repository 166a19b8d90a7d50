"""What mkdocs does to pages before it renders them: three kinds of marks are replaced.

``::: reprune.NAME``            a public name of the package becomes the path of the file that defines it
``<!-- include FILE -->``       the text of a file of the repository, with its links made to fit the page
``<!-- notebook FILE -->``      the cells of a notebook and what they printed
``<!-- help COMMAND -->``       what ``reprune COMMAND --help`` prints
"""

from __future__ import annotations

import inspect
import json
import os
import re
from pathlib import Path
from typing import Any

import reprune

ROOT = Path(__file__).parents[2]
DIRECTIVE = re.compile(r"^::: (reprune(?:\.\w+)*)\.(\w+)$", re.MULTILINE)
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
MARK = re.compile(r"^<!-- (include|notebook|help) (\S+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by mkdocs for every page."""
    folder = Path(page.file.src_uri).parent
    writers = {"include": included, "notebook": notebook, "help": usage}
    text = MARK.sub(lambda found: writers[found[1]](found[2], folder), markdown)
    return DIRECTIVE.sub(lambda found: documented(found[1], found[2]), text)


def documented(module: str, name: str) -> str:
    """The call of a public name, and the directive that puts its docstring there.

    The directive names the file that defines it: a function of the package may hide the module of its name.
    """
    if module != "reprune":
        return f"::: {module}.{name}"
    value = getattr(reprune, name)
    directive = f"::: {value.__module__}.{value.__qualname__}"
    if isinstance(value, type) and issubclass(value, Exception):
        return directive
    return f"```python\n{call(name, inspect.signature(value))}\n```\n\n{directive}"


def call(name: str, signature: inspect.Signature) -> str:
    """The signature without types, which the list of parameters has; one parameter a line if it is long."""
    plain = [item.replace(annotation=item.empty) for item in signature.parameters.values()]
    words = str(signature.replace(parameters=plain, return_annotation=signature.empty))
    if len(name + words) <= 75:
        return name + words
    inside = words[1:-1].split(", ")
    return f"{name}(\n    " + ",\n    ".join(inside) + ",\n)"


def included(name: str, folder: Path) -> str:
    """A file of the repository; its links to what has a page become links from ``folder`` to that page."""

    text = (ROOT / name).read_text()
    if name.endswith(".svg"):  # inside the page, so that it takes its colours from there
        return f"<div>{text.replace(chr(10), '')}</div>"

    def link(found: re.Match[str]) -> str:
        label, target = found[1], found[2]
        page = PAGES.get(target, target.removeprefix("docs/"))
        known = target in PAGES or target.startswith("docs/")
        if re.match(r"https?:|#", target):
            return found[0]
        return f"[{label}]({os.path.relpath(page, folder)})" if known else label

    return re.sub(r"\[([^]]*)\]\(([^)]+)\)", link, text)


def notebook(name: str, folder: Path) -> str:
    """Markdown cells as they are, code cells in fences, and below them what they printed."""
    parts = []
    for cell in json.loads((ROOT / name).read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join("".join(output.get("text", ())) for output in cell["outputs"])
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join(parts)


def usage(command: str, folder: Path) -> str:
    """The help text of a command, 80 columns wide."""
    import argparse

    from reprune.cli import parser

    os.environ["COLUMNS"] = "80"
    action = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return f"```text\n{action.choices[command].format_help().rstrip()}\n```"
