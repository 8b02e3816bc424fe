"""The demo's TouchStone: dialogues about scenes, each with a description and a reference answer.

In the published format, a table with the pictures in it as base64. The English questions are those
of training wherever one fits; the Chinese ones and those about two pictures the model never saw.
"""

import base64
import csv
import io
import json
from collections.abc import Iterator, Sequence

from eval.demo.questions import CAPTION, LETTERS, Question, caption, tail
from eval.demo.scenes import Scene, Thing, column, draw_scene
from eval.demo.writer import SIZES, Writer

COLUMNS = (
    "index",
    "image",
    "question",
    "human_annotation",
    "gpt4_ha_answer",
    "category",
    "task_name",
)
DESCRIBE = "Basic Descriptive Ability"
RECOGNISE = "Visual Recognition Ability"
COMPREHEND = "Visual Comprehension Ability"
TELL = "Visual Storytelling Ability"
SEVERAL = "Multi-image Analysis Ability"

Part = tuple[str, str, str]  # category, task, family of the question
PLAN: tuple[tuple[str, tuple[Part, ...]], ...] = (  # the kind of each picture, what is asked of it
    (
        "shapes",
        (
            (DESCRIBE, "Scene description", "caption"),
            (RECOGNISE, "Color recognition", "color"),
            (COMPREHEND, "Spatial relations", "relation"),
            (TELL, "Story", "story"),
        ),
    ),
    (
        "shapes",
        (
            (DESCRIBE, "Scene description", "caption"),
            (RECOGNISE, "Shape recognition", "shape"),
            (COMPREHEND, "Existence", "exists"),
        ),
    ),
    (
        "shapes",
        (
            (DESCRIBE, "Scene description", "caption"),
            (RECOGNISE, "Color recognition", "color"),
            (f"{RECOGNISE},{COMPREHEND}", "Spatial relations", "side"),
            (TELL, "Story", "story"),
        ),
    ),
    (
        "shapes",
        (
            (f"{DESCRIBE},{RECOGNISE}", "Scene description", "caption"),
            (RECOGNISE, "Counting", "count"),
            (COMPREHEND, "Existence", "exists"),
        ),
    ),
    (
        "shapes",
        ((RECOGNISE, "Shape recognition", "shape"), (COMPREHEND, "Spatial relations", "relation")),
    ),
    ("word", ((RECOGNISE, "Word reading", "read"), (RECOGNISE, "Color recognition", "ink"))),
    ("number", ((RECOGNISE, "Number reading", "number"),)),
    ("word", ((RECOGNISE, "Multiple choice", "choice"),)),
    ("number", ((RECOGNISE, "Number reading", "number"), (RECOGNISE, "Color recognition", "ink"))),
    (
        "chart",
        (
            (RECOGNISE, "Counting", "bars"),
            (f"{RECOGNISE},{COMPREHEND}", "Chart comprehension", "tallest"),
            (COMPREHEND, "Chart comprehension", "value"),
        ),
    ),
    (
        "chart",
        (
            (COMPREHEND, "Chart comprehension", "value"),
            (COMPREHEND, "Chart comprehension", "tallest"),
        ),
    ),
)
CHINESE_PLAN: tuple[tuple[str, tuple[Part, ...]], ...] = (
    (
        "shapes",
        (
            (DESCRIBE, "Scene description", "caption"),
            (RECOGNISE, "Color recognition", "color"),
            (TELL, "Story", "story"),
        ),
    ),
    (
        "shapes",
        ((RECOGNISE, "Counting", "count"), (f"{RECOGNISE},{COMPREHEND}", "Existence", "exists")),
    ),
    ("word", ((RECOGNISE, "Word reading", "read"),)),
    ("chart", ((COMPREHEND, "Chart comprehension", "tallest"),)),
)
PAIRS = ("more", "background", "circle")  # what is asked about two pictures
STORY = "Tell a short story about the picture."

ROWS, SIDES = ("top", "middle", "bottom"), ("left", "center", "right")
CHINESE = {
    "red": "红色",
    "blue": "蓝色",
    "green": "绿色",
    "yellow": "黄色",
    "purple": "紫色",
    "black": "黑色",
    "white": "白色",
    "gray": "灰色",
    "circle": "圆形",
    "square": "正方形",
    "triangle": "三角形",
    "cross": "十字形",
    "top left": "左上角",
    "top center": "上方中间",
    "top right": "右上角",
    "middle left": "左侧中间",
    "center": "正中央",
    "middle right": "右侧中间",
    "bottom left": "左下角",
    "bottom center": "下方中间",
    "bottom right": "右下角",
}


def draw_touchstone(writer: Writer) -> None:
    """The English table, then the smaller Chinese one."""
    for name, chinese, plan, pairs in (
        ("touchstone_20230831", False, PLAN, PAIRS),
        ("touchstone_cn", True, CHINESE_PLAN, PAIRS[:1]),
    ):
        rows = [
            *(row for kind, parts in plan for row in _about_one(writer, kind, parts, chinese)),
            *(_about_two(writer, ask, chinese) for ask in pairs),
        ]
        assert len(rows) == SIZES["touchstone_cn" if chinese else "touchstone_en"]
        path = writer.root / "touchstone" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows((number, *row) for number, row in enumerate(rows))


def _about_one(
    writer: Writer, kind: str, parts: Sequence[Part], chinese: bool
) -> Iterator[tuple[str, ...]]:
    """Rows about the next picture of which all parts can be asked."""
    families = {family for _, _, family in parts} - {"story"}
    scene, draw, pool = next(
        each
        for each in writer.scenes(kind)
        if families <= {question.family for question in each[2]}
    )
    annotation = _annotation_cn(scene) if chinese else _annotation(scene)
    image = _picture(scene)
    for category, task, family in parts:
        if family == "story":
            question = Question("story", STORY, "")
        else:
            question = draw.choice([each for each in pool if each.family == family])
        exchange = _exchange_cn(question, scene) if chinese else _exchange(question, scene)
        yield image, exchange[0], annotation, exchange[1], category, task


def _about_two(writer: Writer, ask: str, chinese: bool) -> tuple[str, ...]:
    """A row about the next two pictures, which do not hold equally many shapes."""
    scenes = writer.scenes("shapes")
    one, _, _ = next(scenes)
    two = next(scene for scene, _, _ in scenes if len(scene.things) != len(one.things))
    exchange = _exchange_two_cn(one, two) if chinese else _exchange_two(ask, one, two)
    tell = _annotation_cn if chinese else _annotation
    first, second = ("图一：", "图二：") if chinese else ("First picture: ", "Second picture: ")
    annotation = f"{first}{tell(one)}\n{second}{tell(two)}"
    image = json.dumps([_picture(one), _picture(two)])
    return image, exchange[0], annotation, exchange[1], SEVERAL, "Picture comparison"


def _picture(scene: Scene) -> str:
    """Base64 of a JPEG of shapes, of a PNG of all else."""
    file = io.BytesIO()
    if scene.kind == "shapes":
        draw_scene(scene).save(file, "JPEG", quality=95, subsampling=0)
    else:
        draw_scene(scene).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _place(thing: Thing) -> str:
    """Where in the 3 x 3 grid a shape stands."""
    row, side = ROWS[thing.box[1] // 5], SIDES[column(thing)]
    return "center" if (row, side) == ("middle", "center") else f"{row} {side}"


# In English


def _annotation(scene: Scene) -> str:
    """All that was drawn."""
    things = scene.things
    if scene.kind == "chart":
        bars = ", ".join(f"a {bar.color} bar with the value {bar.value}" for bar in things)
        tallest = max(things, key=lambda bar: bar.value)
        return (
            f"The picture is a bar chart of {len(things)} bars on a {scene.background} background. "
            f"From left to right there are {bars}. The {tallest.color} bar is the tallest."
        )
    if scene.kind != "shapes":
        (text,) = things
        shown = f'"{text.text}"' if scene.kind == "word" else text.text
        return (
            f"The {scene.kind} {shown} is written in large {text.color} characters on a "
            f"{scene.background} background. There is nothing else in the picture."
        )
    shapes = " ".join(f"At the {_place(t)} there is a {t.color} {t.name}." for t in things)
    number = "1 shape" if len(things) == 1 else f"{len(things)} shapes"
    return f"The picture shows {number} on a plain {scene.background} background. {shapes}"


def _exchange(question: Question, scene: Scene) -> tuple[str, str]:
    """The question as in a dialogue, and a right answer in a whole sentence."""
    text, answer, thing = question.text, question.answer, question.thing
    match question.family:
        case "caption":
            return CAPTION, f"The picture shows {caption(scene)}"
        case "story":
            hero = scene.things[0]
            return text, (
                f"Once upon a time {caption(scene).removesuffix('.')} met. The {hero.color} "
                f"{hero.name} said: here is my home. And so they stayed."
                if len(scene.things) > 1
                else f"Once upon a time a {hero.color} {hero.name} lived alone on a "
                f"{scene.background} background. It liked the quiet, and it stayed."
            )
        case "color" if thing:
            full = f"The {thing.name} is {answer}."
        case "shape" if thing:
            full = f"The {thing.color} shape is a {answer}."
        case "side":
            side = "left" if "left" in text else "right"
            full = f"The shape on the {side} is {answer if 'color' in text else f'a {answer}'}."
        case "relation":
            one, other = text.removeprefix("Is ").removesuffix("?").split(" left of ")
            way = "left" if answer == "yes" else "right"
            full = f"{answer.capitalize()}, {one} is {way} of {other}."
        case "exists":
            look = text.removeprefix("Is there a ").removesuffix("?")
            full = f"Yes, there is a {look}." if answer == "yes" else f"No, there is no {look}."
        case "count" | "bars":
            what = text.split()[2]
            one_of = what.removesuffix("es") if what == "crosses" else what.removesuffix("s")
            full = f"There is 1 {one_of}." if answer == "1" else f"There are {answer} {what}."
        case "tallest":
            full = f"The {answer} bar is the tallest."
        case "value":
            full = f"The value of the {text.split()[-2]} bar is {answer}."
        case "read" | "number":
            full = f"The {scene.kind} that is written is {answer}."
        case "ink":
            full = f"The {scene.kind} is {answer}."
        case _:  # a choice
            letter = LETTERS[question.options.index(answer)]
            return tail(question), f"The right option is {letter}, {answer}."
    return text, full


def _exchange_two(ask: str, one: Scene, two: Scene) -> tuple[str, str]:
    """A question about two pictures and its answer."""
    if ask == "more":
        numbers = len(one.things), len(two.things)
        more = 1 + numbers.index(max(numbers))
        answer = f"Picture {more} has more shapes: {max(numbers)} against {min(numbers)}."
        return "Which picture has more shapes, Picture 1 or Picture 2?", answer
    if ask == "background":
        same = one.background == two.background
        answer = (
            f"Yes, both backgrounds are {one.background}."
            if same
            else f"No, the background of Picture 1 is {one.background}, that of Picture 2 is "
            f"{two.background}."
        )
        return "Do both pictures have the same background color?", answer
    with_circle = [n for n, s in ((1, one), (2, two)) if any(t.name == "circle" for t in s.things)]
    answers = {
        0: "No, there is no circle in either picture.",
        1: f"No, there is a circle in Picture {with_circle[0] if with_circle else ''} only.",
        2: "Yes, there is a circle in both pictures.",
    }
    return "Is there a circle in both pictures?", answers[len(with_circle)]


# In Chinese


def _look_cn(thing: Thing) -> str:
    return f"{CHINESE[thing.color]}的{CHINESE[thing.name]}"


def _annotation_cn(scene: Scene) -> str:
    """All that was drawn."""
    things, background = scene.things, CHINESE[scene.background]
    if scene.kind == "chart":
        bars = "、".join(f"{CHINESE[bar.color]}的柱子，数值为{bar.value}" for bar in things)
        tallest = max(things, key=lambda bar: bar.value)
        return (
            f"这是一张{background}背景的柱状图，共有{len(things)}根柱子。从左到右依次是：{bars}。"
            f"{CHINESE[tallest.color]}的柱子最高。"
        )
    if scene.kind == "word":
        (text,) = things
        ink = CHINESE[text.color]
        return f"{background}的背景上用{ink}的大字写着单词“{text.text}”，没有其他东西。"
    shapes = "".join(f"{CHINESE[_place(thing)]}有一个{_look_cn(thing)}。" for thing in things)
    return f"图片的背景是{background}，图中有{len(things)}个形状。{shapes}"


def _exchange_cn(question: Question, scene: Scene) -> tuple[str, str]:
    """A question of the same family, and a right answer in a whole sentence."""
    answer, thing = question.answer, question.thing
    everything = "、".join(f"一个{_look_cn(t)}" for t in scene.things if scene.kind == "shapes")
    match question.family:
        case "caption":
            full = f"图中有{everything}，背景是{CHINESE[scene.background]}。"
            return "请描述这张图片。", full
        case "story":
            return "请根据图片讲一个小故事。", f"从前有{everything}，住在一起，每天都很快乐。"
        case "color" if thing:
            name = CHINESE[thing.name]
            return f"{name}是什么颜色？", f"{name}是{CHINESE[answer]}的。"
        case "count":
            number = len(scene.things)
            return "图中有几个形状？", f"图中有{number}个形状。"
        case "exists":
            color, name = question.text.removeprefix("Is there a ").removesuffix("?").split()
            look = f"{CHINESE[color]}的{CHINESE[name]}"
            full = f"有，图中有{look}。" if answer == "yes" else f"没有，图中没有{look}。"
            return f"图中有{look}吗？", full
        case "read":
            return "图中写的是什么单词？", f"图中写的单词是“{answer}”。"
    assert question.family == "tallest", question.family
    return "哪种颜色的柱子最高？", f"{CHINESE[answer]}的柱子最高。"


def _exchange_two_cn(one: Scene, two: Scene) -> tuple[str, str]:
    numbers = len(one.things), len(two.things)
    which = "图一" if numbers[0] > numbers[1] else "图二"
    full = f"{which}的形状更多：{max(numbers)}个，另一张只有{min(numbers)}个。"
    return "图一和图二，哪一张的形状更多？", full
