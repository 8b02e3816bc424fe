"""Answers that never change: what a judge says of them shows whether it is still the same judge.

Each is a dialogue with a reference answer and an answer to be judged, from flawless to useless.
"""

from touchstone.table import Dialogue

_KITCHEN = (
    "A kitchen seen from the door. On the left a white stove with a red kettle; on the right a "
    "wooden table with a bowl of four green apples and an open newspaper. A black cat sleeps on "
    "the window sill above the sink. It is daylight, and rain runs down the window."
)
_STREET = (
    "A narrow street in an old town, photographed in the evening. Two cyclists in yellow vests "
    "wait at a red traffic light. Behind them stands a tram with the number 7. The shop on the "
    "corner has a blue sign that says BAKERY and its shutters are down. The pavement is empty."
)
_CHART = (
    "A bar chart headed 'Visitors by month'. Four blue bars: March 120, April 180, May 260, June "
    "240. The vertical axis runs from 0 to 300; a dotted line marks a target of 200."
)


def _anchor(number: int, shown: str, question: str, reference: str, answer: str) -> Dialogue:
    return Dialogue(
        id=f"anchor-{number}",
        question=question,
        annotation=shown,
        reference=reference,
        category="",
        task_name="",
        images=(),
        response=answer,
    )


ANCHORS = (
    _anchor(
        1,
        _KITCHEN,
        "How many apples are there, and where?",
        "There are four green apples in a bowl on the wooden table.",
        "Four green apples lie in a bowl on the wooden table at the right.",
    ),
    _anchor(
        2,
        _KITCHEN,
        "What is the cat doing?",
        "The black cat is asleep on the window sill above the sink.",
        "The cat is drinking milk from a saucer on the floor.",
    ),
    _anchor(
        3,
        _KITCHEN,
        "Describe the room.",
        "A kitchen with a stove and a red kettle on the left, a table with apples and a newspaper "
        "on the right, and a black cat asleep on the sill while it rains outside.",
        "It is a kitchen. There is a table with some fruit.",
    ),
    _anchor(
        4,
        _STREET,
        "Can I buy bread in the shop now?",
        "Probably not: it is evening and the bakery's shutters are down, so it looks closed.",
        "The sign says bakery, but its shutters are down in the evening, so most likely it is "
        "closed and you would have to come back in the morning.",
    ),
    _anchor(
        5,
        _STREET,
        "Why are the cyclists standing still?",
        "They are waiting at a red traffic light.",
        "They are standing still because they stand still.",
    ),
    _anchor(
        6,
        _STREET,
        "Tell a short story about this picture.",
        "After the bakery had closed, Ana and Jo rode home. At the crossing the light turned red "
        "and tram 7 rolled up behind them, the last one of the evening.",
        "asdf asdf street street street street street",
    ),
    _anchor(
        7,
        _CHART,
        "In which months was the target reached?",
        "In May with 260 and in June with 240 visitors; the target was 200.",
        "The target of 200 was reached in April, May and June.",
    ),
    _anchor(
        8,
        _CHART,
        "How did the numbers develop?",
        "They rose from 120 in March over 180 in April to 260 in May and fell slightly to 240 in "
        "June.",
        "From March to May the visitors more than doubled, 120 to 260, before they slipped to 240 "
        "in June; the last two months lie above the target of 200.",
    ),
)
