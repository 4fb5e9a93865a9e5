"""The messages' files."""

from __future__ import annotations

import re

from shared.language.checks.book import Book
from shared.language.playbook_files import MessageFile, PushFile
from shared.language.problems import Problem
from shared.language.reading import read
from shared.language.source import Scalar, decode
from shared.language.templates import MessageTemplates, TemplateFile, examine

_BODIES = frozenset({"body.mjml", "body.html"})
_OF_MAIL = _BODIES | {"subject.txt", "body.txt"}
_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà^{}\\[~]|€"
)
"""The alphabet of text messages and its extension (3GPP TS 23.038); anything else takes more room."""
_LONGEST_SMS = 10
_TAGS = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)


def read_messages(book: Book) -> None:
    for name, locales in book.sorted.messages.items():
        folder = f"messages/{name}"
        message = book.messages[name] = MessageTemplates(name, folder)
        texts = book.texts[name] = {}
        for locale, paths in sorted(locales.items()):
            texts[locale] = {}
            if "message.yaml" in paths:
                read_message_file(book, message, locale, paths["message.yaml"])
            for file, path in sorted(paths.items()):
                if file == "push.yaml":
                    read_push(book, message, locale, path)
                elif file != "message.yaml":
                    read_template(book, message, locale, file, path, "body.txt" not in paths)
            if set(paths) >= _BODIES:
                text = "this message has body.mjml and body.html."
                book.report(Problem(paths["body.html"], 1, 1, text, "Keep one of them."))
        own = book.brand.locale if book.brand is not None else "en"
        default = {**locales.get("", {}), **locales.get(own, {})}
        others = {channel for channel, file in (("sms", "sms.txt"), ("push", "push.yaml")) if file in default}
        message.channels = frozenset(others if others and not _OF_MAIL & set(default) else {"email", *others})
        if "email" not in message.channels:
            continue
        if "subject.txt" not in default:
            text = "this message has no subject."
            book.report(Problem(f"{folder}/subject.txt", 1, 1, text, "Write it into this file."))
        if not _BODIES & set(default):
            text = "this message has no body."
            book.report(Problem(f"{folder}/body.mjml", 1, 1, text, "Write body.mjml or body.html."))


def read_message_file(book: Book, message: MessageTemplates, locale: str, file: str) -> None:
    document = book.document(file)
    shape = None if document is None else read(document, MessageFile, book.report)
    if document is None or shape is None:
        message.variables_known = False
        return
    book.message_files[message.name, locale] = shape
    message.variables = tuple(dict.fromkeys((*message.variables, *shape.variables)))
    node = document.node(("preheader",))
    if shape.preheader is not None and isinstance(node, Scalar):
        place = document.within(("preheader",), 0)
        template = TemplateFile(file, node.text, place.line, place.column)
        examine(template, "text", book.report)
        message.files.append(template)


def read_push(book: Book, message: MessageTemplates, locale: str, file: str) -> None:
    """Reads a push notification: each of its fields is a template."""
    document = book.document(file)
    shape = None if document is None else read(document, PushFile, book.report)
    if document is None or shape is None:
        message.files.append(TemplateFile(file, ""))
        return
    for name in ("title", "body", "url"):
        node = document.node((name,))
        if isinstance(node, Scalar):
            place = document.within((name,), 0)
            template = TemplateFile(file, node.text, place.line, place.column)
            examine(template, "text", book.report)
            message.files.append(template)
            book.texts[message.name][locale][f"push.{name}"] = node.text


def read_template(book: Book, message: MessageTemplates, locale: str, file: str, path: str, with_text: bool) -> None:
    """Reads one template; `with_text` says that a text part is made of it where it is a body."""
    text = decode(path, book.files[path], book.report)
    if text is None:
        message.files.append(TemplateFile(path, ""))
        return
    book.texts[message.name][locale][file] = text
    template = TemplateFile(path, text)
    message.files.append(template)
    if not text.strip():
        book.report(Problem(path, 1, 1, "this file is empty.", "Write its text, or remove the file."))
        return
    kind = file.rsplit(".", 1)[1]
    examine(template, kind if file.startswith("body") else "text", book.report, with_text=with_text)
    if file.startswith("body"):
        message.bodies.append(template)
    if file == "sms.txt":
        check_length(book, path, text)
    lines = text.strip().splitlines()
    if file == "subject.txt" and len(lines) > 1 and "{%" not in text:
        starts_at = text[: len(text) - len(text.lstrip())].count("\n") + 2
        book.report(Problem(path, starts_at, 1, "a subject is one line.", "Put it all on the first line."))


def check_length(book: Book, path: str, text: str) -> None:
    """Gateways cut a long text message into parts, and charge each."""
    fixed = _TAGS.sub("", text.strip())
    room = 153 if _GSM.issuperset(fixed) else 67
    parts = -(-len(fixed) // room)
    if parts > _LONGEST_SMS:
        message = f"this goes out as {parts} text messages or more, and each is charged."
        book.report(Problem(path, 1, 1, message, f"Shorten it to {_LONGEST_SMS * room} characters.", "warning"))
