"""Results as JSON lines: written one by one, so that an interrupted experiment goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

from semaphone.errors import InputError


class Lines:
    """A file of JSON lines; `key` names the fields that say which measurement a line is."""

    def __init__(self, path: Path, key: tuple[str, ...]) -> None:
        self.path, self._key = path, key
        self._found: dict[tuple[Hashable, ...], dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            self._read()

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        number = 0
        try:
            for line in whole.splitlines():
                number += 1
                result = json.loads(line)
                self._found[self._place(result)] = result
        except (ValueError, KeyError, TypeError):
            raise InputError(f"Line {number} of {self.path} is not a result; move the file away.") from None
        if whole != text:  # the last line was cut off in the middle: it is measured again
            self.path.write_text(whole, encoding="utf-8")

    def _place(self, result: dict[str, Any]) -> tuple[Hashable, ...]:
        return tuple(result[name] for name in self._key)

    def get(self, **place: Hashable) -> dict[str, Any] | None:
        """The result at a place, if it has been measured."""
        return self._found.get(tuple(place[name] for name in self._key))

    def add(self, result: dict[str, Any]) -> dict[str, Any]:
        """Appends a result and returns it."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(result, ensure_ascii=False) + "\n")
        self._found[self._place(result)] = result
        return result

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)
