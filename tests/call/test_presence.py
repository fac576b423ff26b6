from __future__ import annotations

import pytest

from semaphone.call.hello import Reason
from semaphone.call.presence import CONSENT, ENGAGED, FIRST_CONSENT, REFUSED, Complaints, Presence


def leaving(presence: Presence, longest: float = 300.0) -> tuple[float, str]:
    """When it is left, and with which sentence."""
    for i in range(round(4 * longest)):
        if sentence := presence.leaves(i / 4):
            return i / 4, sentence
    return longest, ""


@pytest.mark.parametrize(
    ("calls", "give_up", "when", "sentence"),
    [
        (True, 5.0, 5.25, "Nobody answered within 5 s; is the other end there, and does it have the same key?"),
        (True, None, 60.25, "Nobody answered within 60 s; is the other end there, and does it have the same key?"),
        (False, 5.0, 5.25, "Nobody called within 5 s."),
        (False, None, 300.0, ""),
    ],
)
def test_nobody_there(calls, give_up, when, sentence) -> None:
    assert leaving(Presence(calls, give_up)) == (when, sentence)


@pytest.mark.parametrize("calls", [True, False])
def test_an_end_that_has_died_is_left(calls) -> None:
    presence = Presence(calls, 5.0)
    presence.meet(1.0)
    for i in range(10):
        presence.hear(2.0 + i, consents=True)
    assert leaving(presence) == (16.25, "Nothing was heard of the other side for 5 s.")


def test_consent_is_given_by_packets_and_ends() -> None:
    presence = Presence(False, None)
    assert not presence.may_send(0.0)
    presence.meet(1.0)
    assert presence.may_send(1.0 + FIRST_CONSENT - 0.1)
    assert not presence.may_send(1.0 + FIRST_CONSENT)
    presence.hear(2.0, consents=False)  # from elsewhere, without a key
    assert not presence.may_send(2.0 + FIRST_CONSENT)
    presence.hear(3.0, consents=True)
    assert presence.may_send(3.0 + CONSENT - 0.1)
    assert not presence.may_send(3.0 + CONSENT)


def test_recorded_hellos_bring_little() -> None:
    presence = Presence(False, None)
    presence.meet(0.0)
    presence.hear(0.0, consents=True)
    allowed = 0
    for i in range(4 * 300):
        presence.greeted(i / 4)
        allowed += presence.may_send(i / 4)
    assert allowed / 4 == pytest.approx(CONSENT + (300 - CONSENT) * FIRST_CONSENT / CONSENT, rel=0.1)
    assert presence.leaves(61.0)


def test_hellos_become_rare() -> None:
    presence = Presence(True, None)
    assert sum(presence.greets(i / 4) for i in range(40)) == 20
    presence.meet(10.0)
    presence.hear(10.0, consents=True)
    assert sum(presence.greets(10 + i / 4) for i in range(4 * 30)) == pytest.approx(29, abs=1)
    assert sum(presence.greets(40 + i / 4) for i in range(4 * 60)) == 6


def test_refusals_are_believed_when_they_last() -> None:
    presence = Presence(True, 60.0)
    assert presence.refuse(Reason.BUSY, 1.0)
    assert not presence.refuse(Reason.BUSY, 1.5)
    assert presence.leaves(1.0 + ENGAGED + 0.5) == ""
    assert presence.leaves(1.0 + REFUSED + 0.1) == "The other side is in another call."
    presence.meet(7.0)
    assert presence.leaves(8.0) == ""


def test_complaints_are_few() -> None:
    told: list[str] = []
    complaints = Complaints(told.append)
    for i in range(5000):
        complaints.say(f"complaint {i}", i / 100)
        complaints.say("the same", i / 100)
    assert len(told) <= 5 + 50 / complaints.pause + 1
    assert told.count("the same") == 1
    assert complaints.withheld > 4900
