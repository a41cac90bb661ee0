"""Where in a model's answer a link is.

For:      not putting a caller's value into an address: a prompt injection could have it sent away by an image that the
          caller's program loads by itself.
Touches:  nothing.

What counts as a link is wider than what any renderer makes one of. A scheme, `//`, `www.`, or a host and a path begin
one, and only ASCII white space or `<` ends it, as in GFM's autolinks. Besides, whatever stands in `](…)`, with or
without a scheme, in angle brackets or not. Both are followed side by side, since one can lie within the other.
"""

from typing import Final

from .linear import has, searcher

_BEGINS: Final = searcher(
    r"(?i)(?:https?|ftp|wss?|mailto|data|javascript|file|blob):|[a-z0-9+.\-]:\\{0,2}/\\{0,2}/|//|\\\\|/\\|\\/|www\."
    r"|[a-z0-9\-]\.[a-z]{2,24}(?::\d{1,5})?[/?#\\]"
)
_LONGEST_BEGIN: Final = 48  # bytes; what can be looked for in the next piece once more
_LONGEST_WORD: Final = 2048
_MOST_PENDING: Final = 4096
_ENDS: Final = "".join(map(chr, range(0x21))) + "<"
_TO_SPACE: Final = str.maketrans(dict.fromkeys(_ENDS, " "))


class Links:
    """Follows a text, given in pieces of any size. The verdict depends on what was given, not on how it was cut.

    `in_json`: the text is JSON, in which an unescaped quote ends a link as it ends the string.
    """

    __slots__ = ("_in_json", "_in_url", "_pending", "_pending_chars", "_target", "_word")

    def __init__(self, *, in_json: bool) -> None:
        self._in_json = in_json
        self._in_url = False
        self._word = ""  # since the last thing that ends a link; its end only, when it is long
        self._target = _Target(in_json=in_json)
        self._pending: list[str] = []
        self._pending_chars = 0

    def follow(self, piece: str) -> None:
        """What was said; read when it is asked about, or when it is much."""
        self._pending.append(piece)
        self._pending_chars += len(piece)
        if self._pending_chars > _MOST_PENDING:
            self._read()

    def is_inside(self) -> bool:
        """Whether what comes next would be a part of a link."""
        self._read()
        return self._in_url or self._target.is_open

    def _read(self) -> None:
        said = "".join(self._pending)
        self._pending.clear()
        self._pending_chars = 0
        self._target.follow(said)
        self._follow_word(said)

    def _follow_word(self, said: str) -> None:
        word = self._word + said
        begin = max(word.translate(_TO_SPACE).rfind(" "), self._last_quote(word)) + 1
        if begin:
            word = word[begin:]
            self._in_url = False
        if not self._in_url:
            self._in_url = has(_BEGINS, word.encode("utf-8", "replace"))
        if len(word) > _LONGEST_WORD:
            word = word[len(word) - _LONGEST_BEGIN & ~1 :]  # an even number goes: a run of backslashes keeps its parity
        self._word = word

    def _last_quote(self, word: str) -> int:
        if not self._in_json:
            return -1
        at = word.rfind('"')
        while at >= 0 and _is_escaped(word, at):
            at = word.rfind('"', 0, at)
        return at


class _Target:
    """The destination of a Markdown link or image: from `](` to the parenthesis that closes it, or a blank line.

    Where CommonMark and its dialects disagree about the end, it is the later one.
    """

    __slots__ = ("_depth", "_escaped", "_in_angle", "_in_json", "_is_fresh", "_line_breaks", "_previous", "is_open")

    def __init__(self, *, in_json: bool) -> None:
        self._in_json = in_json
        self._previous = ""
        self.is_open = False
        self._depth = 0
        self._line_breaks = 0
        self._in_angle = False
        self._escaped = False
        self._is_fresh = True

    def follow(self, said: str) -> None:
        text = self._previous + said
        at = len(self._previous)
        while at < len(text):
            if not self.is_open:
                opening = text.find("](", max(0, at - 1))
                if opening < 0:
                    break
                self.is_open = True
                at = opening + 2
                continue
            self._read(text[at])
            at += 1
        self._previous = text[-1:]

    def _read(self, sign: str) -> None:
        if self._escaped:
            self._escaped = False
        elif sign == "\\":
            self._escaped, self._is_fresh = True, False
        elif sign == "\n":
            self._line_breaks += 1
            self._in_angle = False
            if self._line_breaks > 1:
                self._close()
        elif sign not in " \t\r":
            self._line_breaks = 0
            self._read_visible(sign)
            self._is_fresh = False

    def _read_visible(self, sign: str) -> None:
        if self._in_json and sign == '"':
            self._close()
        elif self._is_fresh and sign == "<":
            self._in_angle = True
        elif self._in_angle:
            self._in_angle = sign != ">"
        elif sign == "(":
            self._depth += 1
        elif sign == ")":
            self._depth -= 1
            if self._depth < 0:
                self._close()

    def _close(self) -> None:
        self.is_open = False
        self._depth = 0
        self._line_breaks = 0
        self._in_angle = False
        self._escaped = False
        self._is_fresh = True


def _is_escaped(text: str, at: int) -> bool:
    before = at
    while before > 0 and text[before - 1] == "\\":
        before -= 1
    return (at - before) % 2 == 1
