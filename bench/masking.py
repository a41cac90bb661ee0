"""`python -m bench.masking`: what looking for identifiers costs, in microseconds of processor time per body.

For:      the bars of masking, and for comparing two versions: run both, one after the other, and compare ratios.
Touches:  stdout.
"""

import gc
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from nexus_gateway.core.model import Operation
from nexus_gateway.core.pii import Masker, MaskingConfig
from nexus_gateway.serve import GC_THRESHOLD

ENGLISH: Final = (
    "Please summarise the minutes of yesterday's meeting for the team. We agreed to move the release of version 2.4.1 "
    "to 2026-11-24, since the load test of build 8841 was not finished. Order 20261124-0081 stays as it is. "
)
KOREAN: Final = (
    "어제 회의록을 팀에 공유할 수 있도록 요약해 주세요. 2.4.1 버전 배포는 8841번 빌드의 부하 시험이 끝나지 않아 "
    "2026년 11월 24일로 미루기로 했습니다. 담당자는 일정표를 고치고 고객사에 알려 주시기 바랍니다. "
)
THREE: Final = "메일 kim.chulsoo@example.co.kr, 전화 010-2345-6789, 카드 4111 1111 1111 1111. "
BIG_BYTES: Final = 100_000
ROUNDS: Final = 7
_OVER: Final = object()


def numbered(pattern: str, first: int, step: int) -> Iterator[str]:
    return (pattern.format(a=n % 10_000, b=n * 7 % 10_000, c=n % 1_000_000) for n in itertools.count(first, step))


FULL_WIDTH: Final = {ord(sign): chr(ord(sign) + 0xFEE0) for sign in "0123456789-"}
HARD: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "e-mail addresses": lambda: numbered("u{c:x}@example.com ", 4096, 3),
    "mobile numbers": lambda: numbered("010-{a:04}-{b:04} ", 2000, 1),
    "resident numbers": lambda: numbered("900101-1{c:06} ", 1, 7919),
    "bank accounts": lambda: numbered("은행 110-123-{c:06} ", 1, 91),
    "mobile, full width": lambda: (text.translate(FULL_WIDTH) for text in numbered("010-{a:04}-{b:04} ", 2000, 1)),
    "mobile, escaped": lambda: (escaped(text) for text in numbered("010-{a:04}-{b:04} ", 2000, 1)),
    "the same number": lambda: itertools.repeat("010-2345-6789 "),
    "groups of four": lambda: numbered("4{c:03} ", 7, 37),
    "plus and digits": lambda: itertools.repeat("+1 2 3 4 5 6 7 8 9 1 2 3 4 5 "),
    "labelled numbers": lambda: itertools.repeat("order no: 1234567890123 "),
    "at signs": lambda: itertools.repeat("a@b."),
    "digits": lambda: itertools.repeat("0101"),
    "invisible": lambda: itertools.repeat("1\u200b"),
    "backslashes": lambda: itertools.repeat("\\\\"),
}


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(sign):04x}" for sign in text)


def body(text: str, size: int = 1000, *, ascii_only: bool = False) -> bytes:
    """A chat request of about that many bytes."""
    while len(text.encode()) < size:
        text += text
    text = text.encode()[:size].decode(errors="ignore")
    document = {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0.2}
    return json.dumps(document, ensure_ascii=ascii_only).encode()


def of_pieces(pieces: Iterator[str]) -> bytes:
    """A chat request with as many of them as fit into BIG_BYTES, written as they are."""
    taken, size = [], 0
    while size < BIG_BYTES:
        taken.append(next(pieces).encode())
        size += len(taken[-1])
    return b'{"messages":[{"role":"user","content":"%b"}]}' % b"".join(taken)


def seconds(masker: Masker, request: bytes) -> float:
    """Of the processor, the best of some rounds."""
    repeat = max(1, 300_000 // len(request))
    best = 1e9
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(repeat):
            masker.mask_body(request, Operation.CHAT, "key_1")
        best = min(best, (time.process_time() - began) / repeat)
    return best


def longest_step(masker: Masker, request: bytes) -> float:
    """How long the loop stands still at most, in processor time; each step's best of some rounds."""
    rounds = [list(step_times(masker.mask_steps(request, Operation.CHAT, "key_1"))) for _ in range(ROUNDS)]
    best: list[float] = [min(times) for times in zip(*rounds, strict=True)]
    return max(best)


def step_times(steps: Iterator[None]) -> Iterator[float]:
    is_over = False
    while not is_over:
        began = time.thread_time()
        is_over = next(steps, _OVER) is _OVER
        yield time.thread_time() - began


def main() -> int:
    masker = Masker(MaskingConfig(salt=b"a salt of some length"))
    gc.collect()
    gc.freeze()  # as the gateway does when it has started
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    small = {
        "clean ASCII": (body(ENGLISH), 6.0),
        "clean Korean": (body(KOREAN), 25.0),
        "three hits": (body(ENGLISH[:150] + THREE + ENGLISH * 4), 60.0),
        "three hits, Korean": (body(KOREAN[:100] + THREE + KOREAN * 3), 60.0),
        "three hits, escaped": (body(KOREAN[:50] + THREE + KOREAN, 420, ascii_only=True), 60.0),
    }
    missed = 0
    print(f"{'1 KB':28}{'µs':>9}{'bar':>9}")
    for name, (request, bar) in small.items():
        took = seconds(masker, request) * 1e6
        missed += took > bar
        print(f"{name:28}{took:9.1f}{bar:9.0f}{'  over' if took > bar else ''}")
    print(f"\n{'100 KB of nothing but':28}{'ms':>9}{'bar':>9}")
    for name, pieces in HARD.items():
        took = seconds(masker, of_pieces(pieces())) * 1e3
        missed += took > 50
        print(f"{name:28}{took:9.1f}{50:9.0f}{'  over' if took > 50 else ''}")
    print(f"\n{'longest step of':28}{'ms':>9}{'bar':>9}")
    for name, pieces in HARD.items():
        took = longest_step(masker, of_pieces(pieces())) * 1e3
        missed += took > 5
        print(f"{name:28}{took:9.2f}{5:9.0f}{'  over' if took > 5 else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
