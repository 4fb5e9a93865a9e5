"""The words of an expression: text to tokens, and every slip on the way."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import msgspec

from shared.language.durations import UNITS, DurationError, parse_duration
from shared.language.problems import Remark

KEYWORDS: Final = frozenset({"and", "or", "not", "in", "true", "false", "null"})

_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\W\d][\w]*(?:-\w+)*(?:\.\w+(?:-\w+)*)*")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9:.+Z-]*)?")
_AFTER_NUMBER = re.compile(r"[\w.%]+")
_QUOTED = {quote: re.compile(rf"{quote}((?:[^{quote}\\]|\\.)*){quote}", re.DOTALL) for quote in "\"'"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "t": "\t"}
_MEANT = {
    "&&": "and",
    "&": "and",
    "||": "or",
    "|": "or",
    "!": "not",
    "===": "==",
    "!==": "!=",
    "<>": "!=",
    "≠": "!=",
    "=>": ">=",
    "≥": ">=",
    "=<": "<=",
    "≤": "<=",
    "×": "*",
    "÷": "/",
    "//": "/",
    "**": "*",
    "−": "-",
    "–": "-",
}
"""Signs of other languages and keyboards, and ours."""
_SIGNS = {"==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "(", ")", "[", "]", ",", "="} | _MEANT.keys()
_SYMBOL = re.compile("|".join(re.escape(sign) for sign in sorted(_SIGNS, key=len, reverse=True)))
_CURLY = re.compile("[“”„«»]([^“”„«»]*)[“”„«»]|[‘’‚]([^‘’‚]*)[‘’‚]")


class Token(msgspec.Struct, frozen=True):
    """`kind` is `literal`, `word`, the keyword or symbol itself, or `end`."""

    kind: str
    offset: int
    end: int
    value: bool | int | float | str | timedelta | None = None


class Lexer:
    """Text to tokens; what is no token is noted in `problems` and passed over."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.problems: list[Remark] = []

    def note(self, offset: int, end: int, code: str, message: str, remedy: str) -> None:
        self.problems.append(Remark(offset, max(end - offset, 1), code, message, remedy))

    def tokens(self) -> list[Token]:
        found: list[Token] = []
        at, text = 0, self.text
        while at < len(text):
            if space := _SPACE.match(text, at):
                at = space.end()
                continue
            token = self._word(at) or self._quoted(at) or self._number(at) or self._symbol(at)
            if token is None:
                at = self._skip(at)
            else:
                at = token.end
                found.append(token)
        found.append(Token("end", len(text), len(text)))
        return found

    def _word(self, at: int) -> Token | None:
        shape = _WORD.match(self.text, at)
        if shape is None:
            return None
        word = shape[0]
        if word in ("true", "false"):
            return Token("literal", at, shape.end(), word == "true")
        if word == "null":
            return Token("literal", at, shape.end(), None)
        if word in KEYWORDS:
            return Token(word, at, shape.end())
        if word.lower() in KEYWORDS or word in ("None", "nil", "undefined"):
            meant = word.lower() if word.lower() in KEYWORDS else "null"
            self.note(at, shape.end(), "keyword", f'"{word}" is not known.', f'Write "{meant}".')
            return self._meant(meant, at, shape.end())
        return Token("word", at, shape.end(), word)

    def _meant(self, keyword: str, at: int, end: int) -> Token:
        if keyword in ("true", "false", "null"):
            return Token("literal", at, end, {"true": True, "false": False, "null": None}[keyword])
        return Token(keyword, at, end)

    def _quoted(self, at: int) -> Token | None:
        if curly := _CURLY.match(self.text, at):
            content = curly[1] or curly[2] or ""
            message, remedy = f"{curly[0][0]} is no quotation mark for text.", f"Write '{content}'."
            self.note(at, curly.end(), "symbol", message, remedy)
            return Token("literal", at, curly.end(), content)
        quote = self.text[at]
        if quote not in _QUOTED:
            return None
        shape = _QUOTED[quote].match(self.text, at)
        if shape is None:
            self.note(at, len(self.text), "unclosed-text", "This quotation is not closed.", f"Close it with {quote} .")
            return Token("literal", at, len(self.text), self.text[at + 1 :])
        for escape in _ESCAPE.finditer(shape[1]):
            if escape[1] not in _ESCAPED:
                begin = at + 1 + escape.start()
                self.note(begin, begin + 2, "escape", f'"{escape[0]}" means nothing.', 'For a backslash write "\\\\".')
        content = _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), shape[1])
        return Token("literal", at, shape.end(), content)

    def _number(self, at: int) -> Token | None:
        if day := _DAY.match(self.text, at):
            self.note(at, day.end(), "date", "A date stands in quotation marks.", f'Write date("{day[0]}").')
            return Token("literal", at, day.end(), day[0])
        shape = _NUMBER.match(self.text, at)
        if shape is None:
            return None
        tail = _AFTER_NUMBER.match(self.text, shape.end())
        if tail is not None:
            return self._duration(at, shape[0], tail[0], tail.end())
        digits = shape[0]
        if len(digits) > 15:
            self.note(at, shape.end(), "number", "This number is too long.", "Use at most 15 digits.")
            return Token("literal", at, shape.end(), 0)
        return Token("literal", at, shape.end(), float(digits) if "." in digits else int(digits))

    def _duration(self, at: int, digits: str, tail: str, end: int) -> Token:
        try:
            return Token("literal", at, end, parse_duration(digits + tail))
        except DurationError:
            pass
        word = digits + tail
        if len(tail) == 1 and tail in UNITS:
            self.note(at, end, "duration", f'"{word}" is longer than a hundred years.', "Write a shorter one.")
        elif tail == "%":
            share = f"{float(digits) / 100:g}"
            self.note(at, end, "number", f'"{word}" is not known in an expression.', f"Write {share}.")
        elif tail[0] in ".,_" or tail[0].isdigit() or re.fullmatch(r"e\d+", tail, re.IGNORECASE):
            self.note(
                at, end, "number", f'"{word}" is no number.', "Write digits, and a point before decimals: 1000.50"
            )
        else:
            remedy = "Write a whole number and one of m, h, d, w, such as 30m, 1h, 2d, 1w."
            self.note(at, end, "duration", f'"{word}" is neither a number nor a duration.', remedy)
        return Token("literal", at, end, timedelta(days=1) if tail[0].isalpha() else 1)

    def _symbol(self, at: int) -> Token | None:
        shape = _SYMBOL.match(self.text, at)
        if shape is None:
            return None
        sign = shape[0]
        meant = _MEANT.get(sign, sign)
        if meant != sign:
            self.note(at, shape.end(), "symbol", f'"{sign}" is not known.', f'Write "{meant}".')
        return Token(meant, at, shape.end())

    def _skip(self, at: int) -> int:
        """Note what stands here and is nothing; the offset after it."""
        character = self.text[at]
        if character == ".":
            message = "A point joins two names, or a number and its decimals."
            self.note(at, at + 1, "symbol", message, "Write traits.country, or 0.5.")
        else:
            self.note(at, at + 1, "symbol", f'"{character}" is not known.', "Remove it.")
        return at + 1
