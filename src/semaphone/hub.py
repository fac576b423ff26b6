"""Whether a model hub can be asked for weights: one short question, instead of a library's many retries."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from semaphone.errors import InputError

_PATIENCE = 4.0  # s for the whole question, names of hosts included


def _ask(found: list[bool]) -> None:
    from huggingface_hub import constants, get_session

    try:
        found.append(get_session().head(constants.ENDPOINT, timeout=_PATIENCE).status_code < 500)
    except Exception:  # of whichever library the hub's client speaks HTTP with
        found.append(False)


def hub_answers() -> bool:
    """Does the hub answer within a few seconds? Never where the environment says HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    found: list[bool] = []
    question = threading.Thread(target=_ask, args=(found,), daemon=True)
    question.start()
    question.join(_PATIENCE + 1.0)
    return bool(found and found[0])


def local_only(name: str, what: str) -> bool:
    """May `name`, a folder or hub id, be loaded from this machine only? True for a folder, or when the hub is silent.

    InputError in one sentence when the hub is silent and its cache here has nothing of that name.
    """
    if Path(name).is_dir():
        return True
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # retries that come later are not told one by one
    if hub_answers():
        return False
    if not _cached(name):
        raise InputError(
            f"{what} could not be loaded from {name}: it is no folder, it is not in the cache of the model hub, "
            "and the hub does not answer."
        )
    return True


def _cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # a path, or what nothing is called
        return False
