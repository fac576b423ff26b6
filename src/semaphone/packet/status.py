"""What the receiver knows of a token."""

from __future__ import annotations

from enum import IntEnum


class TokenStatus(IntEnum):
    """Kept as a number, so that the statuses of a chunk are one array."""

    RECEIVED = 0  # it is here and is used as it is
    LOST = 1  # it was sent (the table of contents says so) and did not arrive
    UNSENT = 2  # the controller left it out
    UNKNOWN = 3  # not even the table of contents arrived
