"""Results as JSON lines: written one by one, so that an interrupted experiment goes on where it stopped."""

from __future__ import annotations

import json
import os
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
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        number = 0
        try:
            for line in whole.split(b"\n")[:-1]:
                number += 1
                result = json.loads(line)
                self._found[self._place(result)] = result
        except (ValueError, KeyError, TypeError):
            raise InputError(f"Line {number} of {self.path} is not a result; move the file away.") from None
        if whole != data:  # the last line was cut off in the middle: it is measured again
            os.truncate(self.path, len(whole))  # in place, so that nothing is lost on a full disk

    def _place(self, result: dict[str, Any]) -> tuple[Hashable, ...]:
        return tuple(result[name] for name in self._key)

    def get(self, **place: Hashable) -> dict[str, Any] | None:
        """The result at a place, if it has been measured."""
        return self._found.get(tuple(place[name] for name in self._key))

    def add(self, result: dict[str, Any]) -> dict[str, Any]:
        """Appends a result and returns it. Raises InputError if it cannot be written; what stood there before stays."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(result, ensure_ascii=False) + "\n")
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror or error}); what it holds is kept, "
                "and the same command goes on from there."
            ) from error
        self._found[self._place(result)] = result
        return result

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)


class Measured:
    """Those lines of a file that were measured with the same settings; others stay where they are."""

    def __init__(self, path: Path, key: tuple[str, ...], settings: dict[str, Any]) -> None:
        self._lines, self._settings, self.path = Lines(path, ("settings", *key)), json.dumps(settings), path

    def get(self, **place: Hashable) -> dict[str, Any] | None:
        """See `Lines.get`."""
        return self._lines.get(settings=self._settings, **place)

    def add(self, result: dict[str, Any]) -> None:
        """See `Lines.add`."""
        self._lines.add({"settings": self._settings, **result})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (line for line in self._lines if line["settings"] == self._settings)

    def __len__(self) -> int:
        return sum(1 for _ in self)
