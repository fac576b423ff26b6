"""The errors a user can mend: each text is one sentence, and the command line ends with exit code 2."""


class SemaphoneError(Exception):
    """A problem that the person who called us can mend; `str(error)` is one clear sentence."""


class InputError(SemaphoneError):
    """A file, packet or option from outside that is not what it should be."""


class MissingExtraError(SemaphoneError):
    """An optional dependency is absent; the text names the extra that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part: pip install 'semaphone[{extra}]'")
        self.extra = extra
