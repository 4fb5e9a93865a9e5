"""The body of a mail on its way to being a template: MJML becomes HTML, CSS goes inline, a text part is derived.

All of it happens once, when a playbook is loaded. Jinja's tags are set aside first, so that neither MJML's parser nor
HTML's sees a `<` of a condition or moves a loop out of its table, and are put back into the finished HTML. Each of them
is put back on a line of its own, so the lines of errors lead to the marketer's file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from html import escape, unescape
from typing import Literal, NamedTuple

import css_inline
import mrml
import msgspec

from shared.language.template_filters import LINK
from shared.language.templating import TemplateInvalid

BodyKind = Literal["mjml", "html"]


class Source(msgspec.Struct, frozen=True):
    """A template's source, and for each of its lines (from 1) the line of the marketer's file that it comes from."""

    text: str
    lines: tuple[int, ...]

    def line(self, number: int) -> int:
        return self.lines[min(max(number, 1), len(self.lines)) - 1]


class Body(msgspec.Struct, frozen=True):
    """What a body became: an HTML template, and the text template that stands in where a marketer wrote none."""

    html: Source
    text: Source


_RAW = re.compile(r"\{%[-+]?\s*raw\b")


class _Tag(NamedTuple):
    text: str
    line: int

    @property
    def steers(self) -> bool:
        """It prints nothing itself: `{% … %}`."""
        return self.text.startswith("{%") and not _RAW.match(self.text)


# Texts within a tag may hold its end. A raw block is one tag, since nothing in it is Jinja's.
_JINJA = re.compile(
    r"\{#.*?#\}"
    r"|\{%[-+]?\s*raw\s*-?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}"
    r"|\{%(?:'[^']*'|\"[^\"]*\"|[^'\"])*?%\}"
    r"|\{\{(?:'[^']*'|\"[^\"]*\"|[^'\"])*?\}\}",
    re.DOTALL,
)
_OPENING = re.compile(r"\{[{%#]")
_END_OF_RAW = re.compile(r"\{%[-+]?\s*endraw\b")
_MARKUP = re.compile(
    r"<!--.*?-->|<(?P<close>/?)(?P<name>[a-zA-Z][\w:-]*)(?:\"[^\"]*\"|'[^']*'|[^\"'>])*?(?P<empty>/?)>", re.DOTALL
)
_BEGINS = re.compile(r"<!--|</?[a-zA-Z][\w:-]*")
_END_OF = {
    name: re.compile(rf"</{name}\b", re.I)
    for name in ("style", "title", "script", "textarea", "mj-style", "mj-title", "mj-preview")
}
"""Elements in whose text there is no markup, and what ends each."""
_LEVELS = 500
"""How deep elements may lie in each other: parsers call themselves for each level, and thousands end the process."""
_ADD_NO_LEVEL = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
    | {"dd", "dt", "li", "optgroup", "option", "p", "rp", "rt", "tbody", "td", "tfoot", "th", "thead", "tr"}
)
"""Elements that hold nothing, or that the next of their kind ends where no end is written."""

_MJML = frozenset(
    {
        "mjml",
        "mj-accordion",
        "mj-accordion-element",
        "mj-accordion-text",
        "mj-accordion-title",
        "mj-all",
        "mj-attributes",
        "mj-body",
        "mj-breakpoint",
        "mj-button",
        "mj-carousel",
        "mj-carousel-image",
        "mj-class",
        "mj-column",
        "mj-divider",
        "mj-font",
        "mj-group",
        "mj-head",
        "mj-hero",
        "mj-image",
        "mj-navbar",
        "mj-navbar-link",
        "mj-preview",
        "mj-raw",
        "mj-section",
        "mj-social",
        "mj-social-element",
        "mj-spacer",
        "mj-style",
        "mj-table",
        "mj-text",
        "mj-title",
        "mj-wrapper",
    }
)

# MJML's usual fonts would be fetched from elsewhere on every opening; a marketer who wants one says mj-font.
_MJML_OPTIONS = mrml.RenderOptions(fonts={})
_INLINER = css_inline.CSSInliner(keep_at_rules=True, keep_link_tags=True, load_remote_stylesheets=False)


def compile_body(source: str, kind: BodyKind, preheader: str = "") -> Body:
    """The templates of a mail's body. Raises TemplateInvalid with the line of `source`."""
    aside = _Aside(source)
    html = _html_of(aside, kind)
    if preheader and "<mj-preview" not in source:
        html = _with_preheader(html, aside.add_text(preheader))
    text = aside.put_back(_to_text(html, aside), whole=False)
    # The parser puts a row's <tbody> after the loop that stands before the row; it belongs around the loop.
    html = re.sub(rf"((?:{aside.comment}\s*)+)<tbody>", r"<tbody>\1", _inlined(html))
    return Body(html=aside.put_back(_with_tracked_links(html, aside), whole=True), text=text)


def keeps_order(source: str, kind: BodyKind, *, with_text: bool) -> bool:
    """Whether the body's templates have every tag of its source, and those that steer in the same order: then they are
    as sound as the source is. `with_text` asks it of the derived text as well. Raises TemplateInvalid."""
    aside = _Aside(source)
    html = _html_of(aside, kind)
    whole = _inlined(html)
    if not aside.in_order(whole) or any(aside.steers_within(found[2]) for found in _HREF.finditer(whole)):
        return False
    return not with_text or aside.in_order(_to_text(html, aside), steering_only=True)


def _html_of(aside: _Aside, kind: BodyKind) -> str:
    _check_markup(aside, kind)
    protected = aside.as_comments()
    if kind == "mjml":
        return _from_mjml(protected)
    return protected if re.search(r"<html[\s>]", protected, re.I) else _page(protected)


def _inlined(html: str) -> str:
    try:
        return _INLINER.inline(html)
    except css_inline.InlineError as error:
        raise TemplateInvalid(1, f"the CSS cannot be put inline: {error}. Correct the styles.") from None


def jinja_tags(source: str) -> Iterator[re.Match[str]]:
    """Up to one that has no end: what begins there is no template, and to look from each opening behind it for an end
    that is not there would take hours where there are many."""
    at = 0
    while (opening := _OPENING.search(source, at)) is not None:
        found = _JINJA.match(source, opening.start())
        if found is None or (_RAW.match(found[0]) and not _END_OF_RAW.search(found[0])):
            return
        yield found
        at = found.end()


class _Aside:
    """A source whose Jinja tags are replaced by words that no parser minds."""

    def __init__(self, source: str) -> None:
        self._mark = "zj"
        while self._mark in source.lower():
            self._mark += "j"
        self.tags: list[_Tag] = []
        self._required = 0

        line, at, out = 1, 0, list[str]()
        for found in jinja_tags(source):
            between = source[at : found.start()]
            line += between.count("\n")
            lines = found[0].count("\n")
            out += (between, "\n" * lines if found[0].startswith("{#") else self._word(_Tag(found[0], line)))
            line, at = line + lines, found.end()
        self.text = "".join(out) + source[at:]
        self._required = len(self.tags)
        self.word = re.compile(rf"{self._mark}(\d+)z")
        self.comment = rf"<!--{self._mark}\d+z-->"

    def _word(self, tag: _Tag) -> str:
        self.tags.append(tag)
        return f"{self._mark}{len(self.tags) - 1}z"

    def add(self, tag: str) -> str:
        """A tag that is not in the source."""
        return self._word(_Tag(tag, 1))

    def add_text(self, text: str) -> str:
        """A line of text with tags in it that is not in the source, ready to stand between elements."""
        out, at = "", 0
        for found in jinja_tags(text):
            out += escape(text[at : found.start()]) + ("" if found[0].startswith("{#") else self.add(found[0]))
            at = found.end()
        return out + escape(text[at:])

    def line_of(self, position: int) -> int:
        """The source's line of a place in `text` (tags may span lines)."""
        before = self.text[:position]
        hidden = sum(self.tags[int(found[1])].text.count("\n") for found in self.word.finditer(before))
        return before.count("\n") + hidden + 1

    def markup(self) -> Iterator[re.Match[str]]:
        """The tags and comments of `text`. Raises TemplateInvalid at the first that has no end: who shows mails makes
        of it what they like, and to look for the ends of all behind it would take minutes where there are many."""
        at = 0
        while (begins := _BEGINS.search(self.text, at)) is not None:
            found = _MARKUP.match(self.text, begins.start())
            if found is None:
                missing = '"-->"' if begins[0] == "<!--" else '">", or the quotation mark that is missing in it'
                raise TemplateInvalid(self.line_of(begins.start()), f'"{begins[0]}" has no end. Add {missing}.')
            yield found
            at = found.end()
            if (name := _raw(found)) is not None:
                end = _END_OF[name].search(self.text, at)
                if end is None:
                    line = self.line_of(found.start())
                    raise TemplateInvalid(line, f"<{name}> is never closed. Add </{name}>.")
                at = end.start()

    def as_comments(self) -> str:
        """`text`, where what steers and stands between elements is a comment: those may stand in any table."""
        out: list[str] = []
        at = levels = 0
        raw = False
        for found in self.markup():
            levels = self._levels(found, levels)
            between = self.text[at : found.start()]
            out += (between if raw else self._commented(between), found[0])
            at = found.end()
            raw = _raw(found) is not None
        out.append(self._commented(self.text[at:]))
        return "".join(out)

    def _levels(self, found: re.Match[str], before: int) -> int:
        """How many elements are open behind this tag. Raises TemplateInvalid where they are too many."""
        name = (found["name"] or "").lower()
        # Only MJML's elements end with "/>"; HTML's go on.
        if not name or name in _ADD_NO_LEVEL or (found["empty"] and name.startswith("mj")):
            return before
        if found["close"]:
            return max(0, before - 1)
        if before == _LEVELS:
            line = self.line_of(found.start())
            raise TemplateInvalid(line, f"<{name}> lies more than {_LEVELS} levels deep. Write it flatter.")
        return before + 1

    def _commented(self, text: str) -> str:
        if self._mark not in text:
            return text
        return self.word.sub(lambda found: f"<!--{found[0]}-->" if self.tags[int(found[1])].steers else found[0], text)

    def _alone(self, text: str, end: int) -> bool:
        """Whether nothing but tags that steer stands on the line that ends at `end`."""
        line = text[text.rfind("\n", 0, end) + 1 : end]
        words = self.word.findall(line)
        return not self.word.sub("", line).strip() and all(self.tags[int(word)].steers for word in words)

    def in_order(self, text: str, *, steering_only: bool = False) -> bool:
        """Whether what became of the source has its tags, those that steer once each and in their order."""
        found = [int(number) for number in self.word.findall(text)]
        steering = [number for number in found if self.tags[number].steers]
        complete = steering_only or set(found) >= set(range(self._required))
        # What looks like a tag now was none in the source.
        return complete and steering == self.steering and not re.search(r"\{[{%#]", text)

    def steers_within(self, text: str) -> bool:
        return any(self.tags[int(number)].steers for number in self.word.findall(text))

    @property
    def steering(self) -> list[int]:
        """The source's tags that print nothing themselves."""
        return [number for number, tag in enumerate(self.tags[: self._required]) if tag.steers]

    def put_back(self, text: str, *, whole: bool) -> Source:
        """The template's source. `whole`: every tag must have survived, since a lost `{% if %}` changes the meaning."""
        text = re.sub(rf"<!--({self._mark}\d+z)-->", r"\1", text)
        lines = [1]
        seen: set[int] = set()
        out: list[str] = []
        at = 0
        for found in self.word.finditer(text):
            number = int(found[1])
            seen.add(number)
            tag = self.tags[number]
            before = text[at : found.start()]
            lines.extend([lines[-1]] * before.count("\n"))
            # A line break within the tag changes nothing that is printed.
            cut = 3 if tag.text[2:3] in ("-", "+") else 2
            if not _RAW.match(tag.text):
                written = tag.text[:cut] + "\n" + tag.text[cut:]
                lines.extend(range(tag.line, tag.line + tag.text.count("\n") + 1))
            else:
                written = tag.text
                lines.extend([tag.line] * tag.text.count("\n"))
            out += (before, written)
            at = found.end()
            if not whole and tag.steers and text[at : at + 1] == "\n" and not self._alone(text, at):
                # A text template forgets the line end after a tag; this one ends a line of words.
                out.append("\n")
                lines.append(lines[-1])
        lines.extend([lines[-1]] * text.count("\n", at))
        out.append(text[at:])
        if whole:
            for number, tag in enumerate(self.tags[: self._required]):
                if number not in seen:
                    raise TemplateInvalid(
                        tag.line,
                        f"{_short(tag.text)} stands where nothing is kept of it (between styles, or directly in an "
                        f"element that holds only others). Put it around whole elements, or into their text.",
                    )
        return Source("".join(out), tuple(lines))


def _raw(found: re.Match[str]) -> str | None:
    """The element's name, where a tag opens one whose text holds no markup."""
    name = (found["name"] or "").lower()
    return name if name in _END_OF and not found["close"] and not found["empty"] else None


def _short(tag: str) -> str:
    tag = " ".join(tag.split())
    return tag if len(tag) <= 40 else tag[:38] + "…"


def _check_markup(aside: _Aside, kind: BodyKind) -> None:
    """MJML's parser lets unknown elements vanish in silence and gives no places; this finds both."""
    if kind != "mjml":
        return
    open_: list[tuple[str, re.Match[str]]] = []
    for found in aside.markup():
        name = (found["name"] or "").lower()
        if not name.startswith("mj"):
            continue
        if name == "mj-include":
            raise TemplateInvalid(
                aside.line_of(found.start()), "mj-include is not known here: a template stands alone."
            )
        if name not in _MJML:
            near = difflib.get_close_matches(name, _MJML, 1)
            hint = f" Did you mean <{near[0]}>?" if near else " Use an element of MJML 4."
            raise TemplateInvalid(aside.line_of(found.start()), f"<{name}> is no element of MJML.{hint}")
        if found["empty"]:
            continue
        if not found["close"]:
            open_.append((name, found))
        elif not open_:
            raise TemplateInvalid(aside.line_of(found.start()), f"</{name}> closes nothing. Remove it.")
        else:
            expected, opened = open_.pop()
            if expected != name:
                line, opener = aside.line_of(found.start()), aside.line_of(opened.start())
                raise TemplateInvalid(
                    line, f"</{name}> comes before </{expected}>, which line {opener} opened. Close that first."
                )
    if open_:
        name, opened = open_[-1]
        raise TemplateInvalid(aside.line_of(opened.start()), f"<{name}> is never closed. Add </{name}>.")


def _from_mjml(protected: str) -> str:
    """HTML of MJML. What stands before and after `<mjml>` (macros, say) stays around it."""
    found = re.search(r"<mjml\b.*</mjml\s*>", protected, re.DOTALL)
    if found is None:
        raise TemplateInvalid(1, "there is no <mjml> in it. Wrap the body in <mjml><mj-body>…</mj-body></mjml>.")
    try:
        html: str = mrml.to_html(found[0], None, _MJML_OPTIONS).content
    except (OSError, ValueError) as error:
        raise TemplateInvalid(1, f"this MJML cannot be read: {error}. Check its quotes and its nesting.") from None
    before, after = protected[: found.start()].strip(), protected[found.end() :].strip()
    html = re.sub(r"(<body\b[^>]*>)", lambda body: body[0] + before, html, count=1) if before else html
    return html.replace("</body>", after + "</body>", 1) if after else html


def _page(fragment: str) -> str:
    return (
        '<!doctype html><html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"></head><body>{fragment}</body></html>'
    )


_SILENCE = " " + "&#847;&zwnj;&nbsp;" * 60
"""Nothing to see, and wide: mail programs fill up the line after a short preheader with the body's first words."""


def _with_preheader(html: str, line: str) -> str:
    """The line that mail programs show beside the subject, unless the body has its own."""
    hidden = (
        '<div style="display:none;mso-hide:all;font-size:1px;line-height:1px;max-height:0;max-width:0;opacity:0;'
        f'overflow:hidden">{line}{_SILENCE}</div>'
    )
    return re.sub(r"(<body\b[^>]*>)", lambda body: body[0] + hidden, html, count=1, flags=re.I)


_ANCHOR = re.compile(r"<a(?=\s)((?:\s+[^\s=\"'<>/]+(?:=\"[^\"]*\")?)*)\s*>")
_HREF = re.compile(r"(\shref=\")([^\"]*)(\")")


def _with_tracked_links(html: str, aside: _Aside) -> str:
    """Every `<a href>` that may lead to the web passes through the filter that makes it a tracked link."""

    def anchor(found: re.Match[str]) -> str:
        return "<a" + _HREF.sub(href, found[1], count=1) + ">"

    def href(found: re.Match[str]) -> str:
        target = found[2].strip()
        if not (aside.word.search(target) or target.lower().startswith(("http://", "https://", "//"))):
            return found[0]
        begin, end = aside.add(f"{{% filter {LINK} %}}"), aside.add("{% endfilter %}")
        return f"{found[1]}{begin}{target}{end}{found[3]}"

    return _ANCHOR.sub(anchor, html)


_BLOCK = re.compile(
    r"</?(?:address|article|aside|blockquote|body|br|center|div|footer|h[1-6]|header|hr|html|li|main|nav|ol|p|section"
    r"|table|tbody|td|tfoot|th|thead|tr|ul)\b[^<>]*>",
    re.I,
)


def _with_steering_in_lines(html: str, aside: _Aside) -> str:
    """What steers gets a line of its own between blocks, and stays in its sentence anywhere else."""

    def placed(found: re.Match[str]) -> str:
        tag = html.rfind("<", 0, found.start())
        before = tag < 0 or _BLOCK.fullmatch(html, tag, len(html[: found.start()].rstrip()))
        after = found.end() == len(html) or _BLOCK.match(html, found.end())
        words = aside.word.finditer(found[0])
        if before and after:
            return "".join(f"<div>{word[0]}</div>" for word in words)
        return found[0].replace("<!--", "").replace("-->", "")

    return re.sub(rf"{aside.comment}(?:\s*{aside.comment})*\s*", placed, html)


_CONDITIONAL = re.compile(r"<!--\[if\b(?:(?!<!--\[if\b).)*?<!\[endif\]-->", re.DOTALL)
_ANY_ANCHOR = re.compile(r"<a\s((?:\"[^\"]*\"|'[^']*'|[^\"'>])*)>((?:(?!<a\s).)*?)</a\s*>", re.DOTALL | re.I)
_ANY_HREF = re.compile(r"\bhref\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.I)
_ALT = re.compile(r"<img\b[^<>]*?\balt\s*=\s*\"([^\"]*)\"[^>]*>", re.I)


def _to_text(html: str, aside: _Aside) -> str:
    """A text part worth reading, from HTML with words for its Jinja tags: layout tables are blocks, links name their
    targets (RFC 3986, appendix C: `<https://…>`)."""
    # Imported here: most messages have a text of their own, and the checker begins at once without this.
    from inscriptis import get_text
    from inscriptis.css_profiles import STRICT_CSS_PROFILE
    from inscriptis.model.config import ParserConfig

    html = _CONDITIONAL.sub("", html)
    html = re.sub(r"<head\b(?:(?!<head\b).)*?</head\s*>", "", html, flags=re.DOTALL | re.I)
    html = _with_steering_in_lines(html, aside)

    def anchor(found: re.Match[str]) -> str:
        address = _ANY_HREF.search(found[1])
        target = unescape((address[1] or address[2] or "").strip()) if address else ""
        shown = re.sub(r"<[^>]*>", "", _ALT.sub(r"\1", found[2])).strip()
        if not target or target.startswith(("#", "javascript:")):
            return found[2]
        bare = target.removeprefix("mailto:").removeprefix("tel:")
        if not shown:
            return ""
        return shown if unescape(shown) in (target, bare) else f"{shown} {escape(f'<{bare}>')}"

    html = _ANY_ANCHOR.sub(anchor, html)
    # What stands in a cell of its own in MJML is a paragraph of its own.
    html = re.sub(r"<td\b(?=[^<>]*word-break: ?break-word)[^<>]*>", '<td style="margin-top:1em">', html)
    html = re.sub(r"<(/?)(?:table|thead|tbody|tfoot|tr)\b[^>]*>", r"<\1div>", html, flags=re.I)
    html = re.sub(r"</t[dh]\s*>\s*<t[dh]\b[^>]*>", " &#160; ", html, flags=re.I)
    html = re.sub(r'<td style="margin-top:1em">', '<div style="margin-top:1em">', html)
    html = re.sub(r"<(/?)t[dh]\b[^>]*>", r"<\1div>", html, flags=re.I)
    text = get_text(html, ParserConfig(css=STRICT_CSS_PROFILE)).replace("\u00a0", " ")
    lines = [line.strip() if aside.word.fullmatch(line.strip()) else line.rstrip() for line in text.splitlines()]
    lines = [line[1:] if line.startswith(" ") and not line.startswith("  ") else line for line in lines]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
