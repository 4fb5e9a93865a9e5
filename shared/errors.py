"""The root of every error that Rapport raises on purpose."""


class RapportError(Exception):
    """An error whose text is meant for a person: what is wrong, where, and what to do."""


class Unavailable(RapportError):
    """The log or the database cannot be reached now; the same call may succeed later."""


def words_of(error: BaseException) -> str:
    """The kind of an error, and what it says. SQLAlchemy wraps what the driver raised, twice: then the driver's own."""
    wrapped = getattr(error, "orig", None)
    cause = getattr(wrapped, "__cause__", None) or wrapped or error
    return f"{type(cause).__name__}: {cause}"
