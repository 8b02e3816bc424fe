"""What the demo asks about a scene, with the right answers, in the benchmarks' own prompts.

Knows no file layout. Training and the demo's data draw from the same questions; their scenes come
from disjoint seeds.
"""

from collections import Counter
from dataclasses import dataclass
from random import Random

from eval.demo.scenes import COLORS, SHAPES, UNITS, WORDS, Scene, Thing, column

CAPTION = "Describe the image in English:"
NUMBERS = ("one", "two", "three", "four", "five")
LETTERS = "ABCDE"


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    family   what kind of thing is asked: caption, color, box, choice and so on
    text     the question, the expression of a box, or nothing for a caption
    answer   without white space around it; a box as the model writes it
    options  of a choice; the answer is then one of them
    thing    the one shape that is asked about, where there is one
    """

    family: str
    text: str
    answer: str
    options: tuple[str, ...] = ()
    thing: Thing | None = None


def tail(question: Question) -> str:
    """The published prompt behind `</img>`."""
    if question.family == "caption":
        return CAPTION
    if question.family == "box":
        return f"<ref>{question.text}</ref><box>"
    if question.family == "choice":
        return choice_prompt(question.text, question.options)
    return f"{question.text} Answer:"


def choice_prompt(question: str, options: tuple[str, ...]) -> str:
    """ScienceQA's published prompt behind `</img>`, without a hint."""
    lines = "\n".join(
        f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)
    )
    return f"Context: N/A\nQuestion: {question}\nOptions: {lines}\nAnswer:"


def reply(question: Question) -> str:
    """What follows the published prompt, up to `<|endoftext|>`."""
    if question.family == "box":
        return f"{question.answer}</box>"
    if question.family == "choice":
        return " " + LETTERS[question.options.index(question.answer)]
    return " " + question.answer


def box_text(thing: Thing) -> str:
    """A thing's box in the model's notation, 0 to 999."""
    x1, y1, x2, y2 = (round(side * 999 / UNITS) for side in thing.box)
    return f"({x1},{y1}),({x2},{y2})"


def caption(scene: Scene) -> str:
    """The sentence that training teaches."""
    return f"{_list([_look(thing) for thing in scene.things])} on a {scene.background} background."


def paraphrases(scene: Scene) -> tuple[str, ...]:
    """Five differing sentences for a scene of shapes; the first is `caption`."""
    looks = [_look(thing) for thing in scene.things]
    there = "is" if len(looks) == 1 else "are"
    back = _list(looks[::-1])
    return (
        caption(scene),
        f"There {there} {_list(looks)}.",
        f"A picture of {back} on {scene.background}.",
        f"A {scene.background} background with {_list(looks)}.",
        f"{back}, drawn on a {scene.background} background.",
    )


def _look(thing: Thing) -> str:
    return f"a {thing.color} {thing.name}"


def _list(looks: list[str]) -> str:
    return looks[0] if len(looks) == 1 else ", ".join(looks[:-1]) + " and " + looks[-1]


def sentence(text: str) -> str:
    """The text with its first letter capital."""
    return text[:1].upper() + text[1:]


def questions(scene: Scene, draw: Random) -> list[Question]:
    """Every question about a scene that has one right answer; wrong options are drawn."""
    makers = {"shapes": _about_shapes, "chart": _about_bars, "word": _about_word}
    return makers.get(scene.kind, _about_number)(scene, draw)


def _about_shapes(scene: Scene, draw: Random) -> list[Question]:
    things = scene.things
    colors = Counter(thing.color for thing in things)
    shapes = Counter(thing.name for thing in things)
    pool = [Question("caption", "", sentence(caption(scene)))]
    pool.append(Question("count", "How many shapes are there?", str(len(things))))
    for shape, count in shapes.items():
        plural = "crosses" if shape == "cross" else shape + "s"
        pool.append(Question("count", f"How many {plural} are there?", str(count)))
    for thing in things:
        if shapes[thing.name] == 1:
            text = f"What color is the {thing.name}?"
            pool.append(Question("color", text, thing.color, thing=thing))
            pool.append(_choice(text.replace("What", "Which"), thing.color, tuple(COLORS), draw))
        if colors[thing.color] == 1:
            text = f"What shape is {thing.color}?"
            pool.append(Question("shape", text, thing.name, thing=thing))
            pool.append(_choice(text.replace("What", "Which"), thing.name, SHAPES, draw))
        for expression in expressions(scene, thing):
            pool.append(Question("box", expression, box_text(thing), thing=thing))
    pool += _existence(scene, draw)
    left, right = things[0], things[-1]
    if len(things) > 1 and column(left) < column(things[1]):
        pool.append(_side("color is the shape on the left", left.color, left))
        pool.append(_side("shape is on the left", left.name, left))
    if len(things) > 1 and column(right) > column(things[-2]):
        pool.append(_side("color is the shape on the right", right.color, right))
        pool.append(_side("shape is on the right", right.name, right))
    if column(left) < column(right):
        pair, answer = ((left, right), "yes") if draw.random() < 0.5 else ((right, left), "no")
        one, other = (f"the {thing.color} {thing.name}" for thing in pair)
        pool.append(Question("relation", f"Is {one} left of {other}?", answer))
    return pool


def _side(text: str, answer: str, thing: Thing) -> Question:
    return Question("side", f"What {text}?", answer, thing=thing)


def _existence(scene: Scene, draw: Random) -> list[Question]:
    """One question whose answer is yes, and one whose answer is no, often nearly yes."""
    looks = {(thing.color, thing.name) for thing in scene.things}
    color, shape = draw.choice(sorted(looks))
    others = [(c, s) for c in COLORS for s in SHAPES if (c, s) not in looks]
    near = [(c, s) for c, s in others if c == color or s == shape]
    other = draw.choice(near if draw.random() < 0.7 else others)
    return [
        Question("exists", f"Is there a {color} {shape}?", "yes"),
        Question("exists", f"Is there a {other[0]} {other[1]}?", "no"),
    ]


def expressions(scene: Scene, thing: Thing) -> list[str]:
    """Phrases that name one shape of a scene and no other."""
    phrases = [f"{thing.color} {thing.name}"]
    same = [other for other in scene.things if other.name == thing.name]
    if len(same) == 1:
        phrases.append(thing.name)
    elif len(same) == 2:
        other = same[0] if same[1] is thing else same[1]
        if column(thing) != column(other):
            side = "left" if column(thing) < column(other) else "right"
            phrases += [f"{side} {thing.name}", f"{side} {thing.color} {thing.name}"]
    return phrases


def _about_bars(scene: Scene, draw: Random) -> list[Question]:
    bars = scene.things
    pool = [Question("bars", "how many bars are there?", str(len(bars)))]
    tallest = max(bars, key=lambda bar: bar.value)
    pool.append(Question("tallest", "which bar is tallest?", tallest.color))
    colors = tuple(bar.color for bar in bars)
    pool.append(_choice("Which bar is tallest?", tallest.color, colors, draw))
    for bar in bars:
        text = f"what is the value of the {bar.color} bar?"
        pool.append(Question("value", text, str(bar.value)))
    return pool


def _about_word(scene: Scene, draw: Random) -> list[Question]:
    (word,) = scene.things
    return [
        Question("read", "what word is written?", word.text),
        Question("ink", "what color is the word?", word.color),
        _choice("Which word is written?", word.text, WORDS, draw),
    ]


def _about_number(scene: Scene, draw: Random) -> list[Question]:
    (number,) = scene.things
    return [
        Question("number", "what number is written?", number.text),
        Question("ink", "what color is the number?", number.color),
    ]


def _choice(text: str, answer: str, pool: tuple[str, ...], draw: Random) -> Question:
    """Two or three options, the right one at any place."""
    wrong = [option for option in pool if option != answer]
    options = [answer, *draw.sample(wrong, min(draw.choice((1, 2)), len(wrong)))]
    draw.shuffle(options)
    return Question("choice", text, answer, options=tuple(options))
