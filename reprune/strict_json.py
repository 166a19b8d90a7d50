"""Read JSON from files that may be damaged: one kind of error, no duplicate keys, little memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeGuard

SPACE = re.compile(r"[ \t\n\r]*")
STRING = re.compile(r'(?:[^"\\\x00-\x1f]+|\\["\\/bfnrt]|(\\u[dD][89abAB][0-9a-fA-F]{2})|\\u[0-9a-fA-F]{4})*')
"""The pieces of a string; the group is the first half of a surrogate pair."""
ESCAPES = len(r"\ud83d\ude00")  # the longest that stands for one character


def loads(text: str) -> Any:
    """Return what `json.loads` returns; raise `ValueError` for anything wrong, duplicate keys too."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def is_int(value: Any, minimum: int = 0) -> TypeGuard[int]:
    """Return whether `value` is an integer, no bool, at least `minimum` and within 63 bits."""
    return type(value) is int and minimum <= value < 2**63


def parsed_size(text: bytes) -> int:
    """Return about how many bytes the values in the JSON `text` need at most once parsed."""
    return 3 * len(text) + 64 * sum(map(text.count, (b",", b"[", b":"))) + 256 * text.count(b"{")


class Pieces:
    """JSON that is read in pieces, holding no more of it than is returned."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces, self._text, self._at = pieces, "", 0

    def members(self, most: int) -> Iterator[str]:
        """Yield the keys, of `most` bytes each, of the object here; read its value after each."""
        self._take("{")
        seen: set[str] = set()
        while self.next() != "}":
            if seen:
                self._take(",")
            key = b"".join(self.string(most)).decode(errors="surrogatepass")
            if key in seen:
                raise ValueError("a key occurs twice")
            seen.add(key)
            self._take(":")
            yield key
        self._take("}")

    def next(self) -> str:
        """Return the next character that is no space, or "" at the end."""
        while True:
            match = SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def flat(self, most: int) -> Any:
        """Return the object here, which holds no other object, of at most `most` characters."""
        while (end := self._text.find("}", self._at, self._at + most)) < 0:
            if len(self._text) - self._at >= most or not self._more():
                raise ValueError("an object does not end")
        text, self._at = self._text[self._at : end + 1], end + 1
        return loads(text)

    def string(self, most: int) -> list[bytes]:
        """Return the string here, of at most `most` bytes, as pieces of UTF-8.

        Putting it together would need its memory twice.
        """
        self._take('"')
        found: list[bytes] = []
        while True:
            match = STRING.match(self._text, self._at)
            assert match is not None
            end = match.end()
            closed = self._text[end : end + 1] == '"'
            if not closed and match.end(1) == end:  # its other half may follow
                end -= ESCAPES // 2
            part = json.loads(f'"{self._text[self._at : end]}"')
            found.append(part.encode(errors="surrogatepass"))
            most -= len(found[-1])
            self._at = end + closed
            if most < 0:
                raise ValueError("a string is too long")
            if closed:
                return found
            if len(self._text) - self._at >= ESCAPES or not self._more():
                raise ValueError("a string does not end, or holds a character that none can")

    def _take(self, sign: str) -> None:
        if self.next() != sign:
            raise ValueError(f"expected {sign}; got {self.next() or 'the end'}")
        self._at += 1

    def _more(self) -> bool:
        piece = next(self._pieces, None)
        self._text, self._at = self._text[self._at :] + (piece or ""), 0
        return piece is not None
