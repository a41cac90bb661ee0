"""API keys, tokens and private keys.

For:      finding credentials by the prefixes that their issuers gave them so that they can be found.
Touches:  nothing.
"""

import binascii
from typing import Final

import msgspec

from .evidence import DIGITS, LETTERS, Detector, Hit, Rule
from .linear import Search, has, prefixer, searcher, whole

# ---- keys with a known prefix

_LABEL: Final = r"(?:[Ss][Ee][Cc][Rr][Ee][Tt]|시크릿|비밀 ?키)"
_PREFIXED: Final = (
    r"\bsk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_\-]{20,}",  # OpenAI
    r"\bsk-ant-[a-z]{2,8}\d\d-[A-Za-z0-9_\-]{20,}",  # Anthropic
    r"\bsk-or-v1-[0-9a-f]{32,}",  # OpenRouter
    r"\bsk-[A-Za-z0-9]{20,}",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # AWS
    r"\bgh[pousr]_[A-Za-z0-9]{30,}",  # GitHub
    r"\bgithub_pat_[A-Za-z0-9_]{22,}",
    r"\bglpat-[A-Za-z0-9_\-]{20,}",  # GitLab
    r"\bxox[abeoprs]-[A-Za-z0-9\-]{10,}",  # Slack
    r"\bxapp-\d-[A-Za-z0-9\-]{20,}",
    r"\bhooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{16,}",
    r"\bAIza[A-Za-z0-9_\-]{35}",  # Google
    r"\bya29\.[A-Za-z0-9_\-]{20,}",
    r"\bGOCSPX-[A-Za-z0-9_\-]{20,}",
    r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"\bwhsec_[A-Za-z0-9+/]{24,}",
    r"\bSG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{32,64}",  # SendGrid
    r"\bnpm_[A-Za-z0-9]{36}",
    r"\bpypi-AgE[A-Za-z0-9_\-]{40,}",
    r"\bhf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"\bgsk_[A-Za-z0-9]{40,}",  # Groq
    r"\bxai-[A-Za-z0-9]{60,}",
    r"\bdop_v1_[a-f0-9]{64}",  # DigitalOcean
    r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # Shopify
    r"\bdapi[0-9a-f]{32}\b",  # Databricks
    r"\bhv[sb]\.[A-Za-z0-9_\-]{24,}",  # Vault
    r"\bATATT3[A-Za-z0-9_=\-]{60,}",  # Atlassian
    r"\bAccountKey=[A-Za-z0-9+/]{86}==",  # Azure
)
_BOT: Final = r"\b\d{8,10}:AA[A-Za-z0-9_\-]{32,35}"  # Telegram
_BY_LABEL: Final = rf"{_LABEL}[^\n]{{0,48}}?[^A-Za-z0-9/+\n][A-Za-z0-9/+]{{40}}"  # AWS, 40 characters, no prefix
_LABELLED: Final = prefixer(_LABEL)
_WHOLE_KEY: Final = whole("|".join((*_PREFIXED, _BOT)))
_NO_SECRET: Final = searcher(r"^(?:[0-9a-f]{40}|[A-Za-z]{40}|/|.*//)")
_KEY: Final = Rule("api_key", "API_KEY", "issuer's prefix and length")
_LABELLED_KEY: Final = Rule("api_key", "API_KEY", "length and the word secret before it")
_FIRST_TWO: Final = frozenset(
    b"sk AK AS gh gi gl xo xa ho AI ya GO rk wh SG np py hf gs do sh da hv AT Ac se sE Se SE".split()
)
_OTHERS_BEGIN: Final = frozenset(DIGITS + LETTERS)
_MIN_DISTINCT: Final = 8  # characters
_LOWER_AND_JOINTS: Final = LETTERS.lower() + b"-_."


def _judge_key(text: bytes, start: int, end: int) -> Hit | None:
    if text[start : start + 2] not in _FIRST_TWO and text[start] in _OTHERS_BEGIN and b":AA" not in text[start:end]:
        return None  # another detector's shape
    if _LABELLED(text, start, end)[0][0] == start:
        return _judge_labelled(text, end)
    piece = text[start:end]
    if _WHOLE_KEY(text, start, end)[0][0] < 0 or _is_written_out(piece):
        return None
    if text[start - 1 : start] == b"-":
        return None  # disk-…, task-…
    return (start, end, _KEY, piece)


def _is_written_out(piece: bytes) -> bool:
    """A stand-in of a manual: sk-xxxxxxxxxxxxxxxxxxxxxxxx, sk-proj-your-key-goes-here-please."""
    return len(set(piece)) < _MIN_DISTINCT or not piece.translate(None, _LOWER_AND_JOINTS)


def _judge_labelled(text: bytes, end: int) -> Hit | None:
    start = end - 40
    piece = text[start:end]
    after = text[end : end + 1]
    if after.isalnum() or after in (b"/", b"+", b"=") or has(_NO_SECRET, piece) or len(set(piece)) < 2 * _MIN_DISTINCT:
        return None
    return (start, end, _LABELLED_KEY, piece)


API_KEY: Final = Detector(
    name="api_key",
    about="API keys and tokens by their issuers' prefixes (OpenAI, Anthropic, AWS, GitHub, GitLab, Slack, Google, "
    "Stripe and others), and AWS secret keys behind the word secret.",
    shapes=(*_PREFIXED, _BOT, _BY_LABEL),
    word=_judge_key,
    leads=LETTERS + DIGITS + b"\xec\xeb",
    hints=(
        *(pattern for pattern in _PREFIXED if "/" not in pattern),
        _BOT,
        r"whsec_|AccountKey=|hooks\.slack",
        rf"{_LABEL}.{{0,60}}?(?:[A-Za-z0-9+]|\\*/){{40}}",
    ),
)

# ---- JSON web tokens

_PART: Final = prefixer(r"[A-Za-z0-9_\-]+")
_JWT: Final = Rule("jwt", "JWT", "three parts, the first a JSON header")
_MAX_HEADER_BYTES: Final = 4096
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


def _find_tokens(text: bytes) -> list[Hit]:
    hits = []
    at = text.find(b"eyJ")
    while at >= 0:
        ends = _part_ends(text, at)
        is_cut = len(ends) > 1 and ends[-1] == len(text)
        if (len(ends) in (3, 5) or is_cut) and not text[at - 1 : at].isalnum():
            hits.append((at, ends[-1], _JWT, text[at : ends[-1]]))
        at = text.find(b"eyJ", ends[-1])  # behind all that was looked at: no part is measured twice
    return hits


def _part_ends(text: bytes, at: int) -> list[int]:
    """Where the dotted parts end; the first one's alone when it is no header."""
    ends = [_end_of(_PART, text, at)]
    if not _is_header(text[at : ends[0]]):
        return ends
    while len(ends) < 5 and text[ends[-1] : ends[-1] + 1] == b".":
        end = _end_of(_PART, text, ends[-1] + 1)
        if end < 0 and len(ends) != 2:
            break
        ends.append(max(end, ends[-1] + 1))  # the third part of an unsigned token is empty
    return ends[:3] if len(ends) == 4 else ends


def _end_of(part: Search, text: bytes, at: int) -> int:
    return part(text, at, len(text))[0][1]


def _is_header(part: bytes) -> bool:
    if len(part) > _MAX_HEADER_BYTES:
        return False
    try:
        header = msgspec.json.decode(binascii.a2b_base64(part.translate(_STANDARD) + b"=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and ("alg" in header or "typ" in header or "enc" in header)


JWT: Final = Detector(
    name="jwt",
    about="JSON web tokens: three (or five) dotted parts whose first decodes to a JSON header.",
    find=_find_tokens,
    sign=b"eyJ",
    hints=("eyJ[A-Za-z0-9_]",),
)

# ---- private keys

_BEGIN: Final = searcher(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_END: Final = prefixer(r"-----END [A-Z0-9 ]{1,60}-----")
_INSIDE: Final = prefixer(r"(?:[A-Za-z0-9+/=\s]|(?:Proc-Type|DEK-Info|Version|Comment|Hash): ?[^\n]{0,80}\n)*")
_PEM: Final = Rule("private_key", "PRIVATE_KEY", "begins and ends like a private key")
MAX_KEY_BYTES: Final = 16 << 10  # RSA of 16384 bits takes 13 KB


def _find_private_keys(text: bytes) -> list[Hit]:
    hits = []
    at, size = 0, len(text)
    while at < size:
        start, begun = _BEGIN(text, at, size)[0]
        if start < 0:
            break
        at = _end_of_key(text, begun)
        hits.append((start, at, _PEM, text[start:at]))
    return hits


def _end_of_key(text: bytes, begun: int) -> int:
    """Behind the END line; where there is none, behind what can still be a part of the key."""
    limit = min(len(text), begun + MAX_KEY_BYTES)
    dashes = text.find(b"-----", begun, limit)
    if dashes >= 0:
        end = _END(text, dashes, limit)[0][1]
        if end >= 0:
            return end
        limit = dashes
    return begun + len(text[begun : _INSIDE(text, begun, limit)[0][1]].rstrip())


PRIVATE_KEY: Final = Detector(
    name="private_key",
    about="Private keys in PEM and OpenPGP armour, whole; public keys and certificates are left.",
    find=_find_private_keys,
    sign=b"-----B",
    hints=("PRIVATE KEY",),
)
