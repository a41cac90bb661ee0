"""E-mail addresses, in any script.

For:      finding them in text without spaces around them, as Korean writes it, and leaving what only looks like one.
Touches:  nothing.

Labels are of one script each, so that the particle behind `kim@example.com입니다` is no part of the domain.
"""

from typing import Final

from .evidence import Detector, Hit, Rule
from .linear import has, searcher

_LATIN: Final = r"A-Za-z0-9\x{c0}-\x{24f}"
_HANGUL: Final = r"\x{ac00}-\x{d7a3}"
_HAN: Final = r"\x{3400}-\x{9fff}\x{3041}-\x{30fa}"
_OTHER: Final = (
    r"\p{Cyrillic}\p{Greek}\p{Arabic}\p{Hebrew}\p{Devanagari}\p{Thai}\p{Armenian}\p{Georgian}\p{Bengali}\p{Tamil}\p{M}"
)
_LOCAL: Final = rf"[{_LATIN}{_HANGUL}{_HAN}{_OTHER}._%+~'&\-]+"
_LABEL: Final = "|".join(
    rf"[{script}](?:[{script}\-]*[{script}])?" for script in (_LATIN, "0-9" + _HANGUL, "0-9" + _HAN, _OTHER)
)
_TOP: Final = (
    rf"[xX][nN]--[A-Za-z0-9\-]{{2,59}}|[A-Za-z]{{2,24}}|한국|닷컴|닷넷|삼성|中国|中國|公司|网络|网址|香港|台湾|台灣|新加坡|商城|"
    rf"みんな|コム|[{_OTHER}]{{2,24}}"
)
_ADDRESS: Final = searcher(rf"{_LOCAL}@(?:(?:{_LABEL})\.)+(?:{_TOP})")
_UNSPACED: Final = searcher(rf"[{_HANGUL}{_HAN}][._%+~'&\-]*(?:[A-Za-z]|[0-9]{{4}})[{_LATIN}._%+~'&\-]*$")
_USER_INFO: Final = searcher(r"://[^\s/@]*$")
_CODE_BEHIND: Final = searcher(r"^(?:\(|\[['\"0-9]|:[A-Za-z0-9_~.\-]+/)")
_NO_TOP_LEVEL: Final = frozenset(  # what files and systemd units are called
    b"png jpg jpeg gif svg webp ico bmp js jsx ts tsx mjs css scss html htm json xml yml yaml toml ini cfg conf txt "
    b"log lock exe dll jar class pyc whl tar gz tgz patch diff service socket target mount timer".split()
)
_COMMON_TOP_LEVEL: Final = frozenset(
    b"com net org kr io edu gov co jp cn uk de fr info biz me us eu ai app dev".split()
)
_CODE_SIGNS: Final = frozenset((b"(", b"[", b":"))
_URL_SIGNS: Final = frozenset((b"/", b":"))
_COLON: Final = ord(":")
_MAX_LOCAL_BYTES: Final = 4 * 64  # RFC 5321, 4.5.3.1, in characters of up to four bytes
_MAX_DOMAIN_BYTES: Final = 255
_LONGEST_BYTES: Final = _MAX_LOCAL_BYTES + 16  # on either side of the sign; more is none, and seen to be
_EMAIL: Final = Rule("email", "EMAIL", "mailbox and domain")


def _find_mail(text: bytes) -> list[Hit]:
    last_sign = text.rfind(b"@")
    at, last = max(0, text.find(b"@") - _LONGEST_BYTES), min(len(text), last_sign + _LONGEST_BYTES)
    hits = []
    while at <= last_sign:
        start, end = _ADDRESS(text, at, last)[0]
        if start < 0:
            break
        hit = _judge(text, start, end)
        if hit is not None:
            hits.append(hit)
        at = end
    return hits


def _judge(text: bytes, start: int, end: int) -> Hit | None:
    at = text.find(b"@", start)
    local = text[start:at]
    start = at - len((local if local.isascii() else _behind_word(local)).lstrip(b".%+~'&-"))
    domain = text[at + 1 : end].lower()
    top = domain[domain.rfind(b".") + 1 :]
    if not 0 < at - start <= _MAX_LOCAL_BYTES or len(domain) > _MAX_DOMAIN_BYTES or top in _NO_TOP_LEVEL:
        return None
    if text[end : end + 1] in _CODE_SIGNS and _is_code(text, end, top):
        return None
    if text[start - 1 : start] in _URL_SIGNS and has(_USER_INFO, text[max(0, start - 80) : start]):
        return None
    if not domain.isascii():
        domain = domain.decode().lower().encode()
    return (start, end, _EMAIL, text[start : at + 1] + domain)


def _behind_word(local: bytes) -> bytes:
    """Without a word that only stands next to it: Korean writes 메일은kim@example.com."""
    found = _UNSPACED(local, 0, len(local))[0][0]
    return local if found < 0 else local[found:].decode()[1:].encode()


def _is_code(text: bytes, end: int, top: bytes) -> bool:
    """A method call, or a repository as ssh writes it."""
    return has(_CODE_BEHIND, text[end : end + 40]) and (top not in _COMMON_TOP_LEVEL or text[end] == _COLON)


EMAIL: Final = Detector(
    name="email",
    about="E-mail addresses, internationalised ones too; not git@host:path, user info in URLs, icon@2x.png.",
    find=_find_mail,
    sign=b"@",
    hints=(r"[^\\][^\s\"(,;:<>\[\]]@[^\s\"@/]+?(?:[.。．｡﹒․]|\\u)", r"\\u[0-9A-Fa-f]{4}@"),
)
