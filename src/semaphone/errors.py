"""The errors a user can mend: each text is one sentence, and the command line ends with exit code 2."""


class SemaphoneError(Exception):
    """A problem that the person who called us can mend; `str(error)` is one clear sentence."""


class InputError(SemaphoneError):
    """A file, packet or option from outside that is not what it should be."""


class MissingExtraError(SemaphoneError):
    """An optional dependency is absent; the text names the extra that installs it.

    `note` is what else has to be known, such as that a package is compiled when it is installed.
    """

    def __init__(self, what: str, extra: str, note: str = "") -> None:
        super().__init__(
            f"{what} needs an optional part: pip install 'semaphone[{extra}]'" + (f" ({note})" if note else "")
        )
        self.extra = extra


COMPILED = "pesq and pyworld are compiled when they are installed, so a C++ compiler is needed"  # of `metrics`


class InputWarning(UserWarning):
    """Something from outside that is probably not what was meant; the command line prints it and goes on."""
