"""Who is there: when the other end was heard, whether it agrees to be sent to, when to stop waiting for it.

No clock and no socket: times come in, in s of one steady clock. Consent is that of RFC 7675: speech goes to an
address only as long as the other end shows that it is there, so that nobody is flooded who does not want it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from semaphone.call.hello import Reason

USUAL_PATIENCE = 60.0  # s without hearing anything, where nobody says how many
ENGAGED = 3.0  # s since the other end was heard last, for which nobody else is let in
CONSENT = 30.0  # s for which a packet of the other end allows to send to it (RFC 7675 §5.1)
FIRST_CONSENT = 5.0  # and a hello
REFUSED = 5.0  # s of refusals: longer than an end that died without a word counts as engaged
UNHEARD = 1.5  # s without a packet, after which hellos are sent again
GREET_FIRST, GREET_AGAIN, GREET_SELDOM = 0.5, 1.0, 10.0  # s between hellos: until met, unheard, without consent

SENTENCES = {
    Reason.BUSY: "The other side is in another call.",
    Reason.FORMAT: "The other side refuses the call: both need the same codec and weights.",
    Reason.OVER: "The other side is in another call now.",
}


@dataclass
class Presence:
    """One end's view of the other one."""

    calls: bool  # we call; else we wait to be called
    give_up: float | None  # s without hearing anything, after which we leave; None: as long as is usual
    secure: bool = True  # there is a key
    since: float = 0.0  # when we began to wait
    met: bool = False
    heard_at: float = -1e9
    greeted_at: float = -1e9
    consent_until: float = -1e9
    renewed_at: float = -1e9  # when a hello last brought consent back
    refused: Reason | None = None  # since we last heard the other end
    refused_at: float = 0.0

    def meet(self, now: float) -> None:
        """A hello of the other end that cannot be a recording."""
        self.met, self.heard_at, self.refused = True, now, None
        self.consent_until = max(self.consent_until, now + FIRST_CONSENT)

    def greeted(self, now: float) -> None:
        """A hello of the end that is known already: it may be a recording, so it brings little, and seldom.

        But without it, two ends that were cut off from each other would wait for each other for ever.
        """
        if now >= max(self.consent_until, self.renewed_at + CONSENT):
            self.renewed_at, self.consent_until = now, now + FIRST_CONSENT

    def hear(self, now: float, consents: bool) -> None:
        """A packet of the other end. `consents`: it comes from where ours go to, or nobody else can have made it."""
        self.heard_at, self.refused = now, None
        if consents:
            self.consent_until = now + CONSENT

    def refuse(self, reason: Reason, now: float) -> bool:
        """The other end declines; is that new?"""
        new = self.refused is not reason
        if self.refused is None:
            self.refused_at = now
        self.refused = reason
        return new

    def may_send(self, now: float) -> bool:
        """Does the other end agree to be sent to?"""
        return now < self.consent_until

    def engaged(self, now: float) -> bool:
        """Is the call going on, so that nobody else is let in?"""
        return self.met and now - self.heard_at < ENGAGED

    def greets(self, now: float) -> bool:
        """Is it time for a hello?"""
        if self.met and now - self.heard_at <= UNHEARD:
            return False
        pause = GREET_FIRST if not self.met else GREET_AGAIN if self.may_send(now) else GREET_SELDOM
        if now - self.greeted_at < pause:
            return False
        self.greeted_at = now
        return True

    def leaves(self, now: float) -> str:
        """A sentence if there is no use in waiting any longer, else nothing."""
        if self.refused is not None and now - self.refused_at > REFUSED:
            return SENTENCES[self.refused]
        patience = USUAL_PATIENCE if self.give_up is None else self.give_up
        if self.met:
            if now - self.heard_at > patience:
                return f"Nothing was heard of the other side for {patience:g} s."
            return ""
        if now - self.since <= patience or (self.give_up is None and not self.calls):
            return ""
        if self.calls:
            key = ", and does it have the same key" if self.secure else ""
            return f"Nobody answered within {patience:g} s; is the other end there{key}?"
        return f"Nobody called within {patience:g} s."


@dataclass
class Complaints:
    """Lines about what strangers send. They are few, however much comes."""

    tell: Callable[[str], None]
    most: int = 5  # at once
    pause: float = 30.0  # s, after which there may be another one
    withheld: int = 0
    _left: float = field(default=-1.0)
    _at: float = 0.0
    _recent: deque[str] = field(default_factory=lambda: deque(maxlen=16))

    def say(self, line: str, now: float, again: bool = False) -> None:
        """Tells the line, unless it was told lately (`again`: even then) or there are too many."""
        if line in self._recent and not again:
            return
        left = self.most if self._left < 0 else min(self._left + (now - self._at) / self.pause, self.most)
        self._left, self._at = left, now
        if left < 1:
            self.withheld += 1
            return
        self._left = left - 1
        self._recent.append(line)
        self.tell(line)
