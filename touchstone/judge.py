"""What a judge says: two scores on the first line of a reply."""


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


def fault_of(text: str) -> str:
    """Why a reply has no scores, for whoever must look into it; empty where it has."""
    if parse_reply(text) is not None:
        return ""
    line = _first_line(text)
    if not text.strip():
        return "an empty reply"
    parts = line.split(" ")
    if len(parts) != 2:
        return f"two numbers with one space between expected on the first line, {line[:80]!r} found"
    wrong = next(part for part in parts if not _is_number(part))
    return f"a number expected, {wrong[:80]!r} found on the first line, {line[:80]!r}"


def _first_line(text: str) -> str:
    """As the source takes it: of an empty reply it is the text that is put behind each."""
    return f"{text}\nok".strip().split("\n", 1)[0].strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
