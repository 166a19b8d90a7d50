"""The site builds without a warning, and its reference has every public name, each with a docstring."""

import importlib
import inspect
import logging
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.xdist_group("site"),
    pytest.mark.skipif(
        sys.version_info < (3, 11),
        reason="mkdocstrings and pymdown-extensions for 3.10 do not agree",
    ),
]
MODULES = ("fsdp", "hierarchy", "sklearn", "lightning", "torch_pruning")


def public_names(module_name: str) -> list[str]:
    """What the module lists or, where it lists nothing, the public names that it defines."""
    module = importlib.import_module(module_name)
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    own = ((name, value) for name, value in vars(module).items() if name[0] != "_")
    return [name for name, value in own if inspect.isclass(value) and value.__module__ == module_name]


class Ids(HTMLParser):
    """The ids of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.ids |= {value for name, value in attributes if name == "id" and value}

    def handle_data(self, data: str) -> None:
        self.text += data


def build(config_file: Path, site: Path) -> list[str]:
    """Build the site; what mkdocs complains of."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort, BuildError

    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("mkdocs")
    logger.addHandler(handler)
    try:
        build(load_config(str(config_file), site_dir=str(site)))
    except (Abort, BuildError) as error:
        warnings.append(str(error))
    finally:
        logger.removeHandler(handler)
    return warnings


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocstrings_handlers.python")
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        assert build(ROOT / "mkdocs.yml", folder) == []
    return folder


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("module", ["reprune", *(f"reprune.{name}" for name in MODULES)])
def test_every_public_name_is_in_the_reference(site: Path, module: str) -> None:
    pytest.importorskip(module, exc_type=ImportError)
    pages = Ids()
    for page in (site / "reference").rglob("*.html"):
        pages.feed(page.read_text())
    names = public_names(module)
    assert names
    for name in names:
        defined = getattr(importlib.import_module(module), name)
        if (getattr(defined, "__module__", None) or "").startswith("reprune"):
            assert f"{module}.{name}" in pages.ids, f"docs/reference: {module}.{name} is missing"
        else:  # handed on from another library
            assert re.search(rf"\b{name}\b", pages.text), f"docs/reference: {module}.{name} is not named"


@pytest.mark.parametrize("module", ["reprune", *(f"reprune.{name}" for name in MODULES)])
def test_every_public_name_has_a_docstring(module: str) -> None:
    pytest.importorskip(module, exc_type=ImportError)
    missing = []
    for name in public_names(module):
        value = getattr(importlib.import_module(module), name)
        if not (getattr(value, "__module__", None) or "").startswith("reprune"):
            continue
        members = {name: value}
        if inspect.isclass(value):
            members |= {f"{name}.{key}": item for key, item in vars(value).items() if key[0] != "_"}
        documented = (key for key, item in members.items() if callable(item) or isinstance(item, property))
        missing += [f"{module}.{key}" for key in documented if not inspect.getdoc(members[key])]
    assert missing == []


def test_the_site_needs_no_other_server(site: Path) -> None:
    """No script, style, font or picture comes from elsewhere."""
    loads = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"']?(https?:)?//", re.IGNORECASE)
    assert [str(page) for page in site.rglob("*.html") if loads.search(page.read_text())] == []


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "text,complaint",
    [
        ("[a](nowhere.md)", "nowhere.md"),
        ("[a](#nothing)", "nothing"),
        ("::: reprune.codec.Nothing", "Nothing"),
        ("[`a`][reprune.nothing]", "reprune.nothing"),
    ],
)
def test_a_mistake_is_a_warning(tmp_path: Path, text: str, complaint: str) -> None:
    pytest.importorskip("mkdocstrings_handlers.python")
    import yaml

    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    del settings["nav"], settings["hooks"], settings["extra_css"]
    settings["plugins"] = [plugin for plugin in settings["plugins"] if plugin != "search"]
    settings["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["options"] |= {"extensions": []}
    settings["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(tmp_path)]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Title\n\n{text}\n")
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(settings))
    assert complaint in " ".join(build(tmp_path / "mkdocs.yml", tmp_path / "site"))
