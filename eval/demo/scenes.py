"""The demo's world: shapes, words, numbers and bar charts, drawn purely from a seed.

Every picture is a grid of 16 x 16 units, the grid of the model's 256 image tokens, and every
shape's box lies on it. Knows no model and no benchmark.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from PIL import Image, ImageDraw, ImageFont

UNITS = 16  # a picture is so many units wide and high
SIZES = ((224, 224), (240, 208), (208, 240))  # pixels, multiples of the units
COLORS = {
    "red": (220, 40, 40),
    "blue": (40, 80, 225),
    "green": (40, 160, 60),
    "yellow": (240, 200, 30),
    "purple": (150, 50, 180),
    "black": (20, 20, 20),
}
BACKGROUNDS = {"white": (255, 255, 255), "gray": (130, 130, 130)}
SHAPES = ("circle", "square", "triangle", "cross")
INKS = tuple(color for color in COLORS if color != "yellow")  # yellow on white is hard to read
# fmt: off
WORDS = (
    "ant", "bag", "bat", "bed", "bee", "bird", "boat", "book", "box", "bus", "cake", "car", "cat",
    "coat", "cow", "cup", "dog", "door", "duck", "fish", "fox", "frog", "gift", "hat", "horn",
    "jam", "key", "king", "lamp", "leaf", "map", "milk", "moon", "nest", "owl", "pen", "ring",
    "ship", "star", "tree",
)
# fmt: on
KINDS = ("shapes", "chart", "word", "number")
MAX_VALUE = 5  # bars stand for 1 to 5

TRAINING_SEEDS = range(100_000_000)
HELD_OUT_SEEDS = range(100_000_000, 101_000_000)


@dataclass(frozen=True, slots=True)
class Thing:
    """Something drawn.

    name   a shape, "bar", "word" or "number"
    color  a key of COLORS
    box    x1 y1 x2 y2 in units, right and bottom exclusive; what is drawn fills it (text: roughly)
    text   of a word or a number, in lower case
    value  of a bar
    """

    name: str
    color: str
    box: tuple[int, int, int, int]
    text: str = ""
    value: int = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture to draw.

    seed, kind  what it was made from
    size        width and height in pixels
    background  a key of BACKGROUNDS
    things      shapes from left to right (then downwards), bars from left to right, or one text
    """

    seed: int
    kind: str
    size: tuple[int, int]
    background: str
    things: tuple[Thing, ...]

    def box_px(self, thing: Thing) -> tuple[int, int, int, int]:
        """A thing's box in pixels, x1 y1 x2 y2."""
        x, y = self.size[0] // UNITS, self.size[1] // UNITS
        x1, y1, x2, y2 = thing.box
        return x1 * x, y1 * y, x2 * x, y2 * y


def make_scene(seed: int, kind: str) -> Scene:
    """The scene of a seed; the same seed gives the same scene on every machine."""
    draw = Random(f"{kind} {seed}")
    size = draw.choice(SIZES)
    background = draw.choice(tuple(BACKGROUNDS))
    makers = {"shapes": _shapes, "chart": _bars, "word": _word, "number": _number}
    return Scene(seed, kind, size, background, makers[kind](draw))


def _shapes(draw: Random) -> tuple[Thing, ...]:
    """One to three shapes, no two alike in colour and shape, in cells of a 3 x 3 grid."""
    looks = [(color, shape) for color in COLORS for shape in SHAPES]
    count = draw.choice((1, 2, 2, 3, 3))
    chosen = draw.sample(looks, count)
    if count > 1 and draw.random() < 0.4:  # two of one shape, so that sides tell them apart
        color = draw.choice([c for c in COLORS if c != chosen[0][0]])
        chosen[1] = (color, chosen[0][1])
        if count == 3 and chosen[2] == chosen[1]:
            chosen.pop()
    margin = draw.randrange(2), draw.randrange(2)
    things = []
    for (color, shape), cell in zip(chosen, draw.sample(range(9), len(chosen)), strict=True):
        side = draw.choice((4, 5))
        slack = 5 - side
        x = cell % 3 * 5 + margin[0] + draw.randint(0, slack)
        y = cell // 3 * 5 + margin[1] + draw.randint(0, slack)
        things.append(Thing(shape, color, (x, y, x + side, y + side)))
    return tuple(sorted(things, key=lambda thing: (column(thing), thing.box[1])))


def column(thing: Thing) -> int:
    """Column 0, 1 or 2 of the 3 x 3 grid in which a shape stands."""
    return thing.box[0] // 5


def _bars(draw: Random) -> tuple[Thing, ...]:
    """Two to four bars of differing colours; the tallest is the only one of its height."""
    count = draw.choice((2, 3, 4))
    tallest = draw.randint(2, MAX_VALUE)
    values = [tallest] + [draw.randint(1, tallest - 1) for _ in range(count - 1)]
    draw.shuffle(values)
    pitch = {2: 7, 3: 5, 4: 4}[count]
    width = 4 if count == 2 else 3
    first = 16 - pitch * (count - 1) - width - draw.randint(0, 1)
    return tuple(
        Thing("bar", color, (x, 14 - 2 * value - value // 2, x + width, 14), value=value)
        for color, value, x in zip(
            draw.sample(tuple(COLORS), count),
            values,
            (first + pitch * number for number in range(count)),
            strict=True,
        )
    )


def _word(draw: Random) -> tuple[Thing, ...]:
    return (_text(draw, "word", draw.choice(WORDS)),)


def _number(draw: Random) -> tuple[Thing, ...]:
    return (_text(draw, "number", str(draw.randint(10, 99))),)


def _text(draw: Random, name: str, text: str) -> Thing:
    width = {2: 9, 3: 12, 4: 15}[len(text)]
    height = 6
    x, y = draw.randint(0, 16 - width), draw.randint(2, 14 - height)
    return Thing(name, draw.choice(INKS), (x, y, x + width, y + height), text=text)


def draw_scene(scene: Scene) -> Image.Image:
    """The picture, RGB, of the scene's size."""
    image = Image.new("RGB", scene.size, BACKGROUNDS[scene.background])
    canvas = ImageDraw.Draw(image)
    if scene.kind == "chart":
        _draw_axes(canvas, scene.size)
    for thing in scene.things:
        ink = COLORS[thing.color]
        if thing.text:
            for letter, (x1, y1, x2, y2) in letters(scene, thing):
                glyph = _glyph(letter).resize((x2 - x1, y2 - y1), Image.Resampling.NEAREST)
                image.paste(ink, (x1, y1), glyph)
        else:
            _draw_shape(canvas, thing.name, scene.box_px(thing), ink)
    return image


def _draw_axes(canvas: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
    x, y = size[0] // UNITS, size[1] // UNITS
    for value in range(1, MAX_VALUE + 1):
        level = (14 - 2 * value - value // 2) * y
        canvas.rectangle((0, level, size[0] - 1, level), fill=(170, 170, 170))
    canvas.rectangle((x // 2, y, x // 2 + 2, 14 * y), fill=(60, 60, 60))
    canvas.rectangle((x // 2, 14 * y, size[0] - 1, 14 * y + 2), fill=(60, 60, 60))


def _draw_shape(
    canvas: ImageDraw.ImageDraw,
    name: str,
    box_px: tuple[int, int, int, int],
    ink: tuple[int, int, int],
) -> None:
    x1, y1, x2, y2 = box_px[0], box_px[1], box_px[2] - 1, box_px[3] - 1
    if name == "circle":
        canvas.ellipse((x1, y1, x2, y2), fill=ink)
    elif name == "triangle":
        canvas.polygon(((x1, y2), ((x1 + x2) // 2, y1), (x2, y2)), fill=ink)
    elif name == "cross":
        third = (x2 - x1) // 3, (y2 - y1) // 3
        canvas.rectangle((x1 + third[0], y1, x2 - third[0], y2), fill=ink)
        canvas.rectangle((x1, y1 + third[1], x2, y2 - third[1]), fill=ink)
    else:
        canvas.rectangle((x1, y1, x2, y2), fill=ink)


def letters(scene: Scene, thing: Thing) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Each capital letter or digit of a text with its box in pixels, all equally wide."""
    x1, y1, x2, y2 = scene.box_px(thing)
    pitch = (x2 - x1) // len(thing.text)
    for number, letter in enumerate(thing.text.upper()):
        left = x1 + number * pitch
        yield letter, (left, y1, left + pitch - pitch // 6, y2)


@cache
def _glyph(letter: str) -> Image.Image:
    """A letter of Pillow's own font, black or white, cut to its ink."""
    font = ImageFont.load_default(96)
    assert isinstance(font, ImageFont.FreeTypeFont)
    mask = Image.new("1", (192, 192))
    ImageDraw.Draw(mask).text((40, 30), letter, font=font, fill=1, stroke_width=3)
    box = mask.getbbox()
    assert box is not None
    cut = mask.crop(box)
    if cut.width < 36:  # an I or a 1 is not stretched to the full width
        wide = Image.new("1", (60, cut.height))
        wide.paste(cut, ((60 - cut.width) // 2, 0))
        return wide
    return cut
