"""A judge's reply: the scores in its first line, and why it has none that count."""

from touchstone.score import BEST, WORST

REPLY_FORM = f"two numbers from {WORST:g} to {BEST:g}, such as '8 7'"


def parse_reply(text: str) -> tuple[float, float] | None:
    """Scores of the first and the second answer, or None where the reply has none.

    The first line that is not empty must be two numbers with one space between; every number that
    Python reads is one.

    Source  TouchStone's eval script; equal to it on every reply of
            tests/golden/metrics/touchstone_cases.json
    Quirks  kept as in the source: `8, 7`, `8/10 7` and two spaces are no scores, `nan 5` and
            `8 7.` are
    """
    try:
        first, second = map(float, _first_line(text).split(" "))
    except ValueError:
        return None
    return first, second


def on_scale(text: str) -> bool:
    """Whether a reply has scores, plainly written numbers, from 1 to 10.

    Departs  from the published script, which takes any number that Python reads: 85, nan, 1_0
    """
    scores = parse_reply(text)
    return (
        scores is not None
        and all(WORST <= score <= BEST for score in scores)
        and "_" not in _first_line(text)
    )


def usable(text: str, *, as_published: bool = False) -> bool:
    """Whether a reply counts: as published, or only with scores on the scale."""
    return parse_reply(text) is not None if as_published else on_scale(text)


def scale_fault(text: str) -> str:
    """Why the scores of a reply do not count; empty where they do, or where there are none."""
    if parse_reply(text) is None or on_scale(text):
        return ""
    return f"scores outside {WORST:g} to {BEST:g}: {_first_line(text)[:80]!r}"


def fault_of(text: str) -> str:
    """Why a reply has no scores, for whoever must look into it; empty where it has."""
    if parse_reply(text) is not None:
        return ""
    line = _first_line(text)
    if not text.strip():
        return "an empty reply"
    parts = line.split(" ")
    if len(parts) != 2:
        return f"the first line is not two numbers with one space between: {line[:80]!r}"
    wrong = next(part for part in parts if not _is_number(part))
    return f"{wrong[:80]!r} is not a number; the first line is {line[:80]!r}"


def _first_line(text: str) -> str:
    """As the source takes it: of an empty reply it is the text that is put behind each."""
    return f"{text}\nok".strip().split("\n", 1)[0].strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
