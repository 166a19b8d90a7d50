"""Rewrite methods of attentions, so that what they take for the width of their heads may be another.

Many begin with `B, N, C = x.shape` and mean by C two widths: that of the input, and that of all heads
together, as in `self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)`. In the rewritten method
each C of the second kind is `self._of_heads(C)`, and the module says how wide the heads are. So it is with
the result of a layer: `self.sr(x).reshape(B, C, -1)`.
"""

from __future__ import annotations
import __future__ as futures

import ast
import copy
import functools
import inspect
import linecache
import re
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, count
from types import CodeType, FunctionType
from typing import Any, NamedTuple

OF_QUERIES = frozenset("q query queries wq qkv wqkv to_qkv in_proj c_attn attn qk qv".split())
OF_KEYS = frozenset("k v key value keys values wk wv kv qkv wkv wqkv to_qkv in_proj c_attn attn".split())
"""Words in the names of the Linear layers that make queries, and keys or values: `q_proj`, `to_q`, `qkv`."""
_OF_RESULTS = frozenset("proj projection out output o wo fc dense merge".split())
"""Words in the names of the layers behind the heads."""
_OF_NUMBERS = frozenset("num n dim size width heads groups drop dropout scale".split())
"""Words in the names of numbers: `num_key_value_groups`."""
_SHAPED = ("reshape", "view")
WIDTH_OF = "width_of_"
"""The beginning of the names of attributes in which the widths are."""


@functools.lru_cache(maxsize=1024)
def words_of(name: str) -> frozenset[str]:
    """Return the words of an attribute's name, and itself: `to_q` is {to, q, to_q}."""
    name = re.sub(r"\d+", "", name.lower())
    return frozenset((*name.split("_"), name))


class Rewritten(NamedTuple):
    """What :func:`rewritten` finds in a class."""

    methods: dict[str, FunctionType]
    """{name: method}; none for most classes."""
    of_input: frozenset[str]
    """Names of the layers that make queries, keys or values of the input."""
    made: frozenset[str]
    """Names of other layers that are taken to make results as wide as the input."""


def rewritten(kind: type, stop: type, counts: Collection[str]) -> Rewritten:
    """Return the methods of the class `kind`, and its bases down to `stop`, that take one width for another.

    `counts` are the names of attributes that are numbers of heads.
    """
    methods: dict[str, FunctionType] = {}
    changes = []
    for name, method in methods_of(kind, stop).items():
        change = _Change(counts)
        if (new := _rewritten(method, change)) is not None:
            methods[name] = new
            changes.append(change)
    return Rewritten(
        methods,
        frozenset(chain(*(change.of_input for change in changes))),
        frozenset(chain(*(change.made for change in changes))),
    )


def methods_of(kind: type, stop: type) -> dict[str, FunctionType]:
    """Return the functions that are methods of the class `kind`, from it and its bases down to `stop`."""
    methods: dict[str, FunctionType] = {}
    for base in kind.__mro__:
        if base is stop:
            break
        for name, method in vars(base).items():
            if isinstance(method, FunctionType) and name not in methods and getattr(kind, name) is method:
                methods[name] = method
    return methods


def _rewritten(method: FunctionType, change: _Change) -> FunctionType | None:
    """Return `method` after the `change`; None if there is nothing to change, or the source is not plain."""
    code = method.__code__
    if code.co_freevars or ("shape" not in code.co_names and "size" not in code.co_names):
        return None  # what it closes over, such as the class for `super()`, is not in the source
    tree = _source_of(method)
    function = None if tree is None else tree.body[0]
    if not isinstance(function, ast.FunctionDef) or function.decorator_list or not function.args.args:
        return None
    assert tree is not None
    change.owner = function.args.args[0].arg
    written = copy.deepcopy(tree)
    change.visit(function)
    plain = (change.of_input or change.by_weight) and not _has_private_names(function)
    if not (change.changed and plain and _runs(method, written)):
        return None
    source = ast.unparse(ast.fix_missing_locations(tree))
    file = _file_of(method, source)
    compiled = compile(
        source, file, "exec", flags=code.co_flags & futures.annotations.compiler_flag, dont_inherit=True
    )
    inner = [one for one in compiled.co_consts if isinstance(one, CodeType) and one.co_name == code.co_name]
    if len(inner) != 1:
        return None  # as it has parameters of types
    new = FunctionType(inner[0], method.__globals__, method.__name__, method.__defaults__)
    new.__kwdefaults__, new.__annotations__ = method.__kwdefaults__, method.__annotations__
    new.__doc__, new.__module__, new.__qualname__ = method.__doc__, method.__module__, method.__qualname__
    return new


def _source_of(method: FunctionType) -> ast.Module | None:
    """Return the source of `method`, or None."""
    try:
        lines = inspect.getsource(method)
        indented = lines[:1].isspace()  # left as it is, for the sake of strings of several lines
        tree = ast.parse("if True:\n" + lines if indented else lines)
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if indented:
        assert isinstance(tree.body[0], ast.If)
        tree.body = tree.body[0].body
    return tree


def _runs(method: FunctionType, tree: ast.Module) -> bool:
    """Return whether what runs is what the source `tree` of `method` says.

    A file may have been edited since it was imported, and what runs may have been made of another source.
    """
    code = method.__code__
    try:
        again = ast.parse(ast.unparse(tree))
        file = "".join(inspect.findsource(method)[0])
        found = _codes_in(file).get((code.co_name, code.co_firstlineno), ())
    except (OSError, TypeError, SyntaxError, ValueError):
        return False
    return ast.dump(again) == ast.dump(tree) and any(_same(one, code) for one in found)


@functools.lru_cache(maxsize=16)
def _codes_in(file: str) -> dict[tuple[str, int], list[CodeType]]:
    """Return all codes in the source of a whole file, by their names and first lines.

    How a name is read depends on whether the file imports it.
    """
    codes: dict[tuple[str, int], list[CodeType]] = {}
    left = [compile(file, "<source>", "exec", dont_inherit=True)]
    while left:
        one = left.pop()
        codes.setdefault((one.co_name, one.co_firstlineno), []).append(one)
        left += [const for const in one.co_consts if isinstance(const, CodeType)]
    return codes


_OF_CODE = (
    "co_code co_names co_varnames co_freevars co_cellvars co_argcount co_posonlyargcount co_kwonlyargcount "
    "co_flags co_exceptiontable"
).split()


def _same(one: CodeType, other: CodeType) -> bool:
    """Return whether two codes do the same."""
    if any(getattr(one, name, None) != getattr(other, name, None) for name in _OF_CODE):
        return False
    return len(one.co_consts) == len(other.co_consts) and all(
        _same(a, b)
        if isinstance(a, CodeType) and isinstance(b, CodeType)
        else type(a) is type(b) and (repr(a) == repr(b) or (isinstance(a, frozenset) and a == b))
        for a, b in zip(one.co_consts, other.co_consts, strict=True)
    )


def _file_of(method: FunctionType, source: str) -> str:
    """Return a name under which Python finds the `source`; several classes may have one name."""
    what = f"{method.__module__}.{method.__qualname__} with the width of its heads apart"
    lines = source.splitlines(keepends=True)
    for number in count():
        file = f"<reprune: {what}{f' ({number})' if number else ''}>"
        there = linecache.cache.get(file)
        if there is None or (len(there) > 2 and there[2] == lines):
            linecache.cache[file] = len(source), None, lines, file
            return file
    raise AssertionError("there is always another number")


def _has_private_names(function: ast.AST) -> bool:
    """Return whether a name is there that Python changes in the body of a class: `self.__scale`."""
    names = (getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(function))
    return any(name.startswith("__") and not name.endswith("__") for name in names)


class _Change(ast.NodeTransformer):
    """Changes one method; `changed` tells whether there was anything to change."""

    def __init__(self, counts: Collection[str]) -> None:
        self.owner = "self"
        """The name of the module in its method."""
        self.changed = False
        self.of_input: set[str] = set()
        """The layers that make queries, keys or values of what has such a width."""
        self.made: set[str] = set()
        """The other layers whose results are taken to be as wide."""
        self.by_weight = False
        """Whether the method reads the weight of such a layer itself."""
        self._counts = counts
        self._widths: set[str] = set()
        """Names of the width of an input."""
        self._inputs: set[str] = set()
        """Names of what has such a width."""
        self._images: set[str] = set()
        """Those of images, whose channels come last only after they are moved."""
        self._heads: set[str] = set()
        """Names of what was computed of queries, keys or values."""

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        shown, of_heads = _is_shape(node.value), self._of_heads(node.value)
        given = set(_mentioned(node.value))
        calls = (one.func for one in ast.walk(node.value) if isinstance(one, ast.Call))
        as_wide = all("norm" in name for name in map(self._own, calls) if name is not None)
        as_wide = as_wide and not self._is_turned(node.value)
        node.value = self.visit(node.value)
        for target in node.targets:
            for name in _names([target]):
                self._widths.discard(name)
                self._heads.discard(name)
                if not (as_wide and given & self._inputs):
                    self._inputs.discard(name)
                if of_heads:
                    self._heads.add(name)
            if shown and (widths := _width_in(node.value, target)):
                self._widths |= widths
                self._inputs |= given
                self._images = self._images | given if _is_image(target) else self._images - given
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        by = node.func
        shaped = by.value if isinstance(by, ast.Attribute) and by.attr in _SHAPED else None
        of_heads = shaped is not None and self._of_heads(shaped)
        layer = None if shaped is None or of_heads else self._maker(shaped)
        own = self._own(node.func)
        given = {name for arg in node.args if not self._is_turned(arg) for name in _mentioned(arg)}
        if own is not None and _makes_heads(own) and given & self._inputs:
            self.of_input.add(own)
        self.generic_visit(node)
        if of_heads or layer is not None:
            node.args = [self._replaced(arg, layer) for arg in node.args]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        if node.attr == "weight" and _makes_heads(self._own(node.value) or ""):
            self.by_weight = True
        self.generic_visit(node)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.BinOp:
        self.generic_visit(node)
        if isinstance(node.op, ast.FloorDiv) and self._own(node.right) in self._counts:
            node.left = self._replaced(node.left, None)
        return node

    def _is_turned(self, node: ast.AST) -> bool:
        """Return whether the last dimension of what was last read as wide changes its place in `node`."""
        if self._images.intersection(_mentioned(node)):
            return False
        return any(_moves_last(one) for one in ast.walk(node))

    def _maker(self, node: ast.AST) -> str | None:
        """Return the layer that made `node`, by its name; None if something else did."""
        while isinstance(node, ast.Call):
            own = self._own(node.func)
            if own is not None:
                return None if "norm" in own else own
            node = node.func.value if isinstance(node.func, ast.Attribute) else node.func
        return None

    def _replaced(self, size: ast.expr, layer: str | None) -> ast.expr:
        """Return `size` with each name of a width in it replaced by that of heads, or of `layer`'s result."""
        if isinstance(size, ast.Name) and size.id in self._widths:
            self.changed = True
            owner = ast.Name(self.owner, ast.Load())
            if layer is None:
                return ast.Call(ast.Attribute(owner, "_of_heads", ast.Load()), [size], [])
            self.made.add(layer)
            made = ast.Attribute(owner, WIDTH_OF + layer, ast.Load())
            return ast.Call(ast.Attribute(owner, "_made", ast.Load()), [size, made], [])
        if isinstance(size, ast.BinOp):
            size.left, size.right = self._replaced(size.left, layer), self._replaced(size.right, layer)
        elif isinstance(size, (ast.Tuple, ast.List)):
            size.elts = [self._replaced(one, layer) for one in size.elts]
        return size

    def _own(self, node: ast.AST) -> str | None:
        """Return which attribute of the module `node` is."""
        plain = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        return node.attr if plain and node.value.id == self.owner else None  # type: ignore[attr-defined]

    def _of_heads(self, node: ast.AST) -> bool:
        """Return whether `node` is computed of queries, keys or values, before the layer behind the heads."""
        if isinstance(node, ast.Name):
            return node.id in self._heads
        if isinstance(node, ast.Attribute) and node.attr == "shape":
            return False
        own = self._own(node.func if isinstance(node, ast.Call) else node)
        if own is not None and _makes_heads(own):
            return True
        if own is not None and words_of(own) & _OF_RESULTS:
            return False
        return any(self._of_heads(child) for child in ast.iter_child_nodes(node))


def _makes_heads(name: str) -> bool:
    """Return whether an attribute of this name is a layer or method that makes queries, keys or values."""
    words = words_of(name)
    return not words.isdisjoint(OF_QUERIES | OF_KEYS) and words.isdisjoint(_OF_NUMBERS)


def _is_shape(node: ast.AST) -> bool:
    """Return whether `node` is the shape of a tensor, or a size in it."""
    if isinstance(node, ast.Subscript):
        return _is_shape(node.value)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr == "size"
    return isinstance(node, ast.Attribute) and node.attr == "shape"


def _width_in(shape: ast.AST, target: ast.AST) -> set[str]:
    """Return the name of the number of channels in `target`, which is assigned the `shape` or a part of it.

    It is the last, but the second of images: `B, C, H, W = x.shape`.
    """
    if isinstance(target, ast.Name):
        return {target.id} if ast.unparse(shape).endswith(("[-1]", "(-1)")) else set()
    if not isinstance(target, ast.Tuple) or isinstance(shape, ast.Subscript):
        return set()
    sizes = [one.id if isinstance(one, ast.Name) else "" for one in target.elts]
    return {sizes[1 if _is_image(target) else -1]} - {"", "_"}


def _is_image(target: ast.AST) -> bool:
    """Return whether `target` names the sizes of images: `B, C, H, W`."""
    if not isinstance(target, ast.Tuple) or len(target.elts) != 4:
        return False
    return [one.id.lower() if isinstance(one, ast.Name) else "" for one in target.elts[2:]] == list("hw")


def _moves_last(node: ast.AST) -> bool:
    """Return whether `node` is `x.transpose(1, 2)`, `x.permute(0, 2, 1)` or `x.mT`: of three dimensions."""
    if isinstance(node, ast.Attribute):
        return node.attr == "mT"
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    dims = [ast.unparse(arg) for arg in node.args]
    if node.func.attr in ("transpose", "swapaxes", "swapdims"):
        return len(dims) == 2 and {*dims} <= {"1", "2", "-1", "-2"}
    return node.func.attr == "permute" and dims in (["0", "2", "1"], ["(0, 2, 1)"])


def _mentioned(node: ast.AST) -> Iterator[str]:
    """Yield the names in `node`."""
    return (one.id for one in ast.walk(node) if isinstance(one, ast.Name))


def _names(targets: Iterable[Any]) -> Iterator[str]:
    """Yield the names that an assignment to `targets` gives."""
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, (ast.Tuple, ast.List)):
            yield from _names(target.elts)
        elif isinstance(target, ast.Starred):
            yield from _names([target.value])
