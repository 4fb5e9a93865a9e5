"""What can be said of a message's templates before anybody is mailed: their syntax, and the names that they use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec
from jinja2 import TemplateSyntaxError

from shared.language.bodies import Body, BodyKind, compile_body, keeps_order
from shared.language.problems import Problem, did_you_mean, listed, nearest, quoted
from shared.language.source import line_starts
from shared.language.template_names import Use, Used, used_in
from shared.language.templating import TemplateInvalid, compile_template, environment
from shared.language.variables import BRAND, CUSTOMER_IN_TEMPLATES, MESSAGE, STANDARD


class TemplateFile(msgspec.Struct):
    """One template of a message. `file` and `line` say where its first line stands."""

    file: str
    text: str
    line: int = 1
    column: int = 1
    used: Used | None = None
    """None where it could not be read."""

    @property
    def channel(self) -> str:
        """What the message is sent by where this is read."""
        return _SHORT.get(self.file.rsplit("/", 1)[-1], "email")

    def place(self, line: int, word: str = "") -> tuple[int, int]:
        """Line and column of a word in one of its lines; of the line's first character where it is not there."""
        starts = line_starts(self.text)
        at = starts[min(max(line, 1), len(starts)) - 1]
        end = starts[line] if line < len(starts) else len(self.text)
        written = self.text[at:end]
        found = re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", written) if word else None
        column = found.start() if found else len(written) - len(written.lstrip())
        column = 0 if column >= len(written.rstrip()) else column
        return self.line + line - 1, column + (self.column if line == 1 else 1)

    def problem(self, use: Use, message: str, remedy: str, warning: bool = False) -> Problem:
        line, column = self.place(use.line, ".".join(use.path))
        if column == 1:
            line, column = self.place(use.line, use.path[0])
        return Problem(self.file, line, column, message, remedy, "warning" if warning else "error")


class Sender(msgspec.Struct):
    """A step that sends the message. `sound` is False where what it gives could not be read."""

    file: str
    line: int
    column: int
    gives: Mapping[str, tuple[int, int]]
    """The names under `with`, and the line and column of each."""
    promotional: bool
    begins_with: str | None
    """The event that begins the journey; None where it begins otherwise."""
    sound: bool
    channel: str = "email"


_SHORT = {"sms.txt": "sms", "push.yaml": "push"}
_HREF = re.compile(r"\bhref\s*=\s*([\"'])(.*?)\1", re.IGNORECASE | re.DOTALL)
_LEADS_NOWHERE = re.compile(r"#|mailto:|tel:|\{\{-?\s*unsubscribe_url\b", re.IGNORECASE)


class MessageTemplates(msgspec.Struct):
    """All templates of one message, and what its message.yaml says they need."""

    name: str
    folder: str
    files: list[TemplateFile] = []
    bodies: list[TemplateFile] = []
    """Those of `files` that are bodies, in any locale."""
    variables: tuple[str, ...] = ()
    variables_known: bool = True
    channels: frozenset[str] = frozenset({"email"})
    """Those for which it has words."""
    senders: list[Sender] = []
    senders_known: bool = True
    """Whether every step could be read: one that could not may send it."""

    @property
    def leads_somewhere(self) -> bool:
        """Whether any of its bodies has a link of which a click would be told."""
        targets = (found[2].strip() for body in self.bodies for found in _HREF.finditer(body.text))
        return any(target and not _LEADS_NOWHERE.match(target) for target in targets)


# --- syntax -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _read(text: str, kind: str, with_text: bool) -> Used | TemplateInvalid:
    """The names of a template, or what is wrong with it. Kept, since a playbook is checked on every save."""
    try:
        used = used_in(text)
        if kind in ("mjml", "html"):
            chosen: BodyKind = "mjml" if kind == "mjml" else "html"
            if not keeps_order(text, chosen, with_text=with_text):
                _compile_both(compile_body(text, chosen), kind)
        return used
    except TemplateInvalid as error:
        return error


def _compile_both(body: Body, kind: str) -> None:
    try:
        compile_template(body.html.text, html=True, name=kind)
    except TemplateInvalid as error:
        raise TemplateInvalid(body.html.line(error.line), error.message) from None
    try:
        # Its filters are those of the html, so the syntax is all that can differ.
        environment(html=False).parse(body.text.text)
    except TemplateSyntaxError as error:
        raise TemplateInvalid(body.text.line(error.lineno), error.message or "this is not a template") from None


_METHODS = frozenset({"get", "items", "keys", "values"})


def examine(template: TemplateFile, kind: str, report: Callable[[Problem], None], *, with_text: bool = True) -> None:
    """Checks a template's syntax, and notes the names that it uses. `with_text`: a text part is derived from it."""
    found = _read(template.text, kind, with_text)
    if isinstance(found, Used):
        template.used = found
        return
    line, column = template.place(found.line, _word_in(found.message))
    message, remedy = _halves(found.message)
    report(Problem(template.file, line, column, message, remedy))


def _word_in(message: str) -> str:
    found = re.search(r"['\"<]/?([^'\"<>]+)['\">]", message)
    return found[1] if found else ""


def _halves(said: str) -> tuple[str, str]:
    """What is wrong, and what to do, of a text that says both."""
    message, stop, remedy = said.partition(". ")
    message = message if message.endswith(".") else f"{message}."
    return message[:1].lower() + message[1:], remedy if stop else "Correct the template."


# --- names ------------------------------------------------------------------------------------------------------------


def check_names(
    message: MessageTemplates,
    urls: Mapping[str, str] | None,
    properties_absent: Callable[[str, tuple[str, ...]], tuple[str, list[str]] | None],
    report: Callable[[Problem], None],
) -> None:
    """Names that nobody provides, and those that are provided for nothing."""
    for template in message.files:
        if template.used is None:
            continue
        for use in template.used.uses:
            _check_use(message, template, use, urls, properties_absent, report)
        _check_beginning(message, template, report)
    _check_senders(message, report)
    _check_unsubscribing(message, report)


def _check_use(
    message: MessageTemplates,
    template: TemplateFile,
    use: Use,
    urls: Mapping[str, str] | None,
    properties_absent: Callable[[str, tuple[str, ...]], tuple[str, list[str]] | None],
    report: Callable[[Problem], None],
) -> None:
    name, rest = use.path[0], use.path[1:]
    if name not in STANDARD:
        assert template.used is not None
        if name not in template.used.optional:
            _check_given(message, template, use, report)
        return
    known: tuple[str, ...] | None = {
        "customer": CUSTOMER_IN_TEMPLATES,
        "brand": BRAND,
        "message": MESSAGE,
    }.get(name)
    if rest and rest[0] in _METHODS:
        return
    if known is not None and rest and rest[0] not in known:
        remedy = did_you_mean(rest[0], known, f"Known: {listed(known, 'and')}.")
        report(template.problem(use, f"{name} has no {quoted(rest[0])}.", remedy))
    address = rest if name == "urls" else rest[1:] if use.path[:2] == ("brand", "urls") else ()
    if address and address[0] not in _METHODS and urls is not None and address[0] not in urls:
        remedy = did_you_mean(address[0], urls, f"Add {address[0]}: https://… to urls there.")
        report(template.problem(use, f"rapport.yaml has no {quoted(address[0])} under urls.", remedy))
    if name == "trigger" and rest:
        _check_trigger(message, template, use, properties_absent, report)


def _check_given(
    message: MessageTemplates, template: TemplateFile, use: Use, report: Callable[[Problem], None]
) -> None:
    """A name that must come from `with`, from each step that sends the message."""
    name = use.path[0]
    lacking = [one for one in message.senders if one.channel == template.channel and name not in one.gives]
    if not message.senders and name not in message.variables and message.variables_known and message.senders_known:
        otherwise = (
            f"Remove {message.folder}, or send it; for words to come, write variables: [{name}] in message.yaml."
        )
        remedy = did_you_mean(name, (*STANDARD, *message.variables), otherwise)
        # A journey that is taken away leaves its messages behind, and nobody is harmed by that.
        text = f"no journey sends this message, so {quoted(name)} is given by nobody."
        report(template.problem(use, text, remedy, warning=True))
    lacking = [sender for sender in lacking if sender.sound]
    if not lacking:
        return
    given = {*STANDARD, *message.variables, *(each for sender in message.senders for each in sender.gives)}
    meant = nearest(name, given - {name})
    by = f"{lacking[0].file}:{lacking[0].line}"
    if len(lacking) > 1:
        by += f" and {len(lacking) - 1} more"
    remedy = f'Did you mean "{meant}"?' if meant else "Add it under with there, or remove it here."
    report(template.problem(use, f"{quoted(name)} is not given by {by}.", remedy))


def _check_trigger(
    message: MessageTemplates,
    template: TemplateFile,
    use: Use,
    properties_absent: Callable[[str, tuple[str, ...]], tuple[str, list[str]] | None],
    report: Callable[[Problem], None],
) -> None:
    for sender in message.senders:
        if not sender.sound or sender.channel != template.channel:
            continue
        if sender.begins_with is None:
            return
        absent = properties_absent(sender.begins_with, use.path[1:])
        if absent is not None:
            part, known = absent
            text = f"{quoted(sender.begins_with)}, with which {sender.file} begins, has no {part} in the catalogue."
            remedy = did_you_mean(part, known, "Correct it, or add it to the event's file.")
            report(template.problem(use, text, remedy))
            return


def _check_beginning(message: MessageTemplates, template: TemplateFile, report: Callable[[Problem], None]) -> None:
    """What the event that begins a journey would give, where none begins it. Said once, with its first place: a
    template asks for much of it."""
    sender = next((one for one in message.senders if one.sound and one.channel == template.channel), None)
    uses = [use for use in template.used.uses if use.path[0] == "trigger" and use.path[1:]] if template.used else []
    if sender is None or sender.begins_with is not None or not uses:
        return
    uses.sort(key=lambda use: template.place(use.line, ".".join(use.path)))
    names = list(dict.fromkeys(".".join(use.path) for use in uses))
    empty = f"{names[0]} and {len(names) - 1} more are" if len(names) > 1 else f"{names[0]} is"
    text = f"{sender.file} does not begin with an event, so {empty} empty here."
    report(template.problem(uses[0], text, "Use traits or customer, or give it under with.", warning=True))


def _check_senders(message: MessageTemplates, report: Callable[[Problem], None]) -> None:
    unread = any(template.used is None for template in message.files)
    for sender in message.senders:
        own = [template for template in message.files if template.channel == sender.channel]
        used = {name for template in own if template.used for name in template.used.names}
        for name in message.variables:
            if sender.sound and name not in sender.gives:
                text = f"message {quoted(message.name)} needs {quoted(name)}, and this step does not give it."
                report(Problem(sender.file, sender.line, sender.column, text, f"Add with: {{{name}: …}}."))
        for name, (line, column) in sender.gives.items():
            if name not in used and not unread and own:
                text = f"no template of message {quoted(message.name)} uses {quoted(name)}."
                report(Problem(sender.file, line, column, text, "Remove it, or use it there.", "warning"))


def _check_unsubscribing(message: MessageTemplates, report: Callable[[Problem], None]) -> None:
    """Advertising by mail says in its text how to stop it."""
    promoting = next((sender for sender in message.senders if sender.promotional and sender.channel == "email"), None)
    if promoting is None:
        return
    for body in message.bodies:
        if body.used is not None and "unsubscribe_url" not in body.used.names:
            text = f"{promoting.file} sends this under a promotional topic, and it has no way to unsubscribe."
            report(Problem(body.file, 1, 1, text, "Add a link to {{ unsubscribe_url }}."))
