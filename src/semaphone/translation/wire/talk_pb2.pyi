from typing import Any

# Generated message classes have no types of their own here.
def __getattr__(name: str) -> Any: ...
