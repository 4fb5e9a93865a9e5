"""The root of every error that Rapport raises on purpose."""


class RapportError(Exception):
    """An error whose text is meant for a person: what is wrong, where, and what to do."""


class Unavailable(RapportError):
    """The log or the database cannot be reached now; the same call may succeed later."""
