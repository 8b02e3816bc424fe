"""The sample browser in a real browser, opened from a file, without a network."""

import io
import shutil
from itertools import pairwise
from types import SimpleNamespace

import pytest
from browser import chromium, watched
from PIL import Image
from test_browser_pages import HOSTILE, make_data, make_run, make_task, question

from eval.api import Prediction, Rank
from eval.data.declare import Corpus, Sample
from eval.data.records import MAX_ID_CHARACTERS
from eval.metrics.box import box_accuracy
from eval.report.browser import ASSETS, COPY, build_browser
from eval.report.browser.pages import sample_data_script, write_task
from eval.report.browser.rows import AnswerView, SampleView

PREDICTED, SECOND, TRUE = (29, 78, 216), (194, 65, 12), (21, 128, 61)
GREY, WHITE = (128, 128, 128), (255, 255, 255)
SHOWN = "rows => rows.map(row => row.querySelector('.id').textContent)"
BEYOND = """[document.documentElement, document.getElementById("sample")].flatMap(
  (e) => [e.scrollWidth - e.clientWidth, e.id ? 0 : e.scrollHeight - e.clientHeight])"""
MARKS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x00\x1b"
COLOURS = ["red", "green", "blue"]
MANY = 200_000


def pick(page, **values):
    """Choose in fields by their id; `outcome_0` is the field outcome-0."""
    for name, value in values.items():
        field = page.locator(f"#{name.replace('_', '-')}")
        if field.evaluate("e => e.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def shows(page, status, ids=None):
    """Wait until so many samples are said to be there, and these are in the list."""
    page.wait_for_function(
        "text => document.getElementById('status').textContent.startsWith(text)", arg=status
    )
    if ids is not None:
        assert ids == page.locator(".row").evaluate_all(SHOWN)


def title(page, text):
    page.wait_for_function(
        "text => document.getElementById('title')?.textContent === text", arg=text
    )


def pick_group(page, group, value):
    page.locator(f"label:text-is('{group}') + select").select_option(label=value)


def wrong(seen):
    """What axe finds wrong or cannot tell, but for the contrast of a lone letter, which is that of
    all others.
    """
    untold = ("too short to determine", "only non-text characters")
    return [each for each in seen.violations() if not any(why in each for why in untold)]


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs of a task about boxes, of one with groups, of ranked options and of captions."""
    root = tmp_path_factory.mktemp("browse")
    data = make_data(root / "data", ("a.png", "b.png"))
    reference = {"box": [20.0, 10.0, 120.0, 60.0], "width": 200, "height": 100}
    boxes = make_task(
        [question(n, "the grey thing", reference) for n in range(3)],
        "boxes_val",
        metrics={"accuracy": box_accuracy},
    )
    asked = [
        question(n, f"Is number {n} {COLOURS[n % 3]}?", ["cat"] * 9 + ["kitten"], "b.png",
                 color=COLOURS[n % 3], parity=["even", "odd"][n % 2])
        for n in range(30)
    ]  # fmt: skip
    partly = {"cat": 1.0, "kitten": 0.3, "dog": 0.0}
    words = make_task(asked, "words_val", metrics={"vqa_accuracy": lambda text, r: partly[text]})
    ranked = make_task(
        [
            Sample(
                "x",
                {"image": "a.png", "image_2": "b.png", "question": "Which?"},
                "B",
                options=(" A", " B"),
            )
        ],
        "ranked_val",
        decode=Rank,
    )
    cider = {"cider": Corpus(lambda texts, r: [0.5 * n for n in range(len(texts))], mean=True)}
    captions = make_task(
        [Sample(str(n), {"image": "a.png"}, ["a cat"]) for n in range(4)],
        "captions_val",
        prompt="<img>{image}</img>Describe it:",
        metrics=cider,
    )
    first = ["cat", "kitten", "dog"] * 10
    second = [*first[:24], "dog", "cat", "cat", "cat", "kitten"]
    base = [
        (boxes, ["(100,100),(600,600)", "(300,400),(900,900)", "no box"]),
        (words, first),
        (ranked, [Prediction("x", "B", losses=(2.5, 1.25))]),
        (captions, ["a cat"] * 4),
    ]
    candidate = [
        (boxes, ["(100,100),(600,600)", "(100,100),(600,600)", "(0,0),(999,999)"]),
        (words, [*second, Prediction("29", "", error="out of memory")]),
    ]
    runs = [make_run(root / "base", data, base), make_run(root / "tuned", data, candidate)]
    tasks = [boxes, words, ranked, captions]
    one = build_browser(runs[:1], tasks, data, root / "one")
    two = build_browser(runs, tasks, data, root / "two")
    return SimpleNamespace(root=root, data=data, tasks=tasks, runs=runs, one=one, two=two)


@pytest.fixture
def seen(browser, made):
    """A page; whatever a test does, only its files are asked for, and nothing complains."""
    with watched(browser) as found:
        yield found
        assert [] == found.complaints
        assert [] == found.dialogs
        inside = (made.root.as_uri(), "data:,")
        assert [] == [url for url in found.requests if not url.startswith(inside)]


def open_at(seen, page, fragment=""):
    seen.page.goto(page.resolve().as_uri() + fragment)
    seen.page.wait_for_selector("#title")
    return seen.page


def test_filters_leave_what_is_wanted(seen, made):
    """By benchmark, outcome, kind of question and value; fields together, and all cleared again."""
    page = open_at(seen, made.one)
    shows(page, "3 of 3 samples; mean value 0.3333", ["0", "1", "2"])
    pick(page, task="1")
    shows(page, "30 of 30 samples; mean value 0.4333")
    pick(page, outcome_0="right")
    shows(page, "10 of 30", [str(n) for n in range(0, 30, 3)])
    assert "right (10)" == page.locator("#outcome-0 option:checked").text_content()
    pick_group(page, "parity", "odd (15)")
    shows(page, "5 of 30", ["3", "9", "15", "21", "27"])
    pick_group(page, "color", "blue (10)")
    shows(page, "0 of 30", [])
    assert "No sample" == page.text_content("#title")
    page.click("#reset")
    shows(page, "30 of 30")
    pick(page, outcome_0="partly")
    shows(page, "10 of 30 samples; mean value 0.3000")
    page.click("#reset")
    pick(page, **{"from": "0.1", "to": "0.5"})
    shows(page, "10 of 30 samples; mean value 0.3000")
    page.click("#reset")
    pick(page, order="high")
    shows(page, "30 of 30")
    assert ["0", "3", "6"] == page.locator(".row").evaluate_all(SHOWN)[:3]
    pick(page, task="3", outcome_0="")
    shows(page, "4 of 4 samples; mean value 0.7500", ["3", "2", "1", "0"])
    pick(page, task="-1", order="data")
    shows(page, "38 of 38")


def test_search_goes_over_ids_or_over_all_texts(seen, made):
    """Ids are all here; for texts every part is read, also those that were never shown."""
    page = open_at(seen, made.one, "#task=words_val")
    pick(page, search="2")
    shows(page, "12 of 30")
    pick(page, where="texts", search="NUMBER 17 blue")
    shows(page, "1 of 30", ["17"])
    pick(page, search="kitten")
    shows(page, "30 of 30")  # a reference of each
    pick(page, search="nowhere")
    shows(page, "0 of 30")


def test_what_changed_between_two_runs(seen, made):
    """Worse, better, the same; and the outcome in either run. What one run has no value of neither
    changed nor stayed.
    """
    page = open_at(seen, made.two, "#task=words_val")
    shows(page, "30 of 30 samples; mean value base 0.4333, tuned 0.4724")
    pick(page, flip="changed")
    shows(page, "3 of 30", ["24", "25", "26"])
    pick(page, flip="worse")
    shows(page, "1 of 30", ["24"])
    pick(page, flip="same")
    shows(page, "26 of 30")
    pick(page, flip="better", order="rise")
    shows(page, "2 of 30", ["26", "25"])
    page.click("#reset")
    pick(page, outcome_0="wrong", outcome_1="right")
    shows(page, "1 of 30", ["26"])
    page.click("#reset")
    pick(page, outcome_1="none")
    shows(page, "1 of 30", ["29"])
    title(page, "words_val 29")
    assert "No answer: out of memory" in page.text_content("#sample")
    pick(page, task="2", outcome_1="")
    shows(page, "1 of 1")
    assert "not asked" in page.text_content("#sample")


def test_a_sample_shows_all_that_is_known_of_it(seen, made):
    """Question, answer, value, references and how often each was given, groups, prompt, options."""
    page = open_at(seen, made.one, "#task=words_val")
    page.click(".row:nth-child(8)")
    title(page, "words_val 7")
    page.wait_for_selector("figcaption:has-text('pixels')")
    said = " ".join(page.inner_text("#sample").split())
    for text in (
        "Is number 7 green?",
        "0.3",
        "kitten",
        "cat × 9",
        "color green",
        "parity odd",
        "<img>b.png</img>Is number 7 green?",
        "b.png, 200 × 100 pixels",
    ):
        assert text in said
    pick(page, task="2")
    title(page, "ranked_val x")
    assert ["Picture 1 of 2: a.png", "Picture 2 of 2: b.png"] == page.locator(
        "#sample img"
    ).evaluate_all("all => all.map(e => e.alt)")
    assert [["A", "2.5"], ["B", "1.25"]] == page.locator("table").first.evaluate(
        "t => [...t.tBodies[0].rows].map(r => [...r.cells].map(c => c.innerText.trim()))"
    )


def test_buttons_lead_on_and_back(seen, made):
    """Next and previous keep to what the filters leave, and stop at its ends; focus stays."""
    page = open_at(seen, made.one, "#task=words_val")
    pick(page, outcome_0="right")
    shows(page, "10 of 30")
    title(page, "words_val 0")
    assert page.is_disabled("#previous")
    for expected in ("3", "6"):
        page.click("#next")
        title(page, f"words_val {expected}")
    assert "next" == page.evaluate("document.activeElement.id")
    page.click("#previous")
    title(page, "words_val 3")
    page.focus("#list")
    page.keyboard.press("End")
    title(page, "words_val 27")
    assert page.is_disabled("#next")


def test_all_goes_by_keys(seen, made):
    """Tab reaches the fields and the list; arrows and letters move, "/" searches, Escape returns;
    the list says which row it is at, of how many.
    """
    page = open_at(seen, made.one, "#task=words_val")
    title(page, "words_val 0")

    def active():
        return page.evaluate(
            """() => {
              const list = document.getElementById("list");
              const row = document.getElementById(list.getAttribute("aria-activedescendant"));
              return [row.querySelector(".id").textContent, row.getAttribute("aria-selected"),
                      row.getAttribute("aria-posinset"), row.getAttribute("aria-setsize")];
            }"""
        )

    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        if reached[-1] == "list":
            break
    assert {"task", "outcome-0", "order", "where", "search", "reset", "list"} <= {*reached}
    for key, expected in (
        ("ArrowDown", 1),
        ("ArrowDown", 2),
        ("ArrowUp", 1),
        ("j", 2),
        ("j", 3),
        ("k", 2),
        ("End", 29),
        ("Home", 0),
    ):
        page.keyboard.press(key)
        title(page, f"words_val {expected}")
        assert [str(expected), "true", str(expected + 1), "30"] == active()
    page.keyboard.press("Enter")
    assert "title" == page.evaluate("document.activeElement.id")
    page.keyboard.press("j")
    title(page, "words_val 1")
    page.keyboard.press("/")
    assert "search" == page.evaluate("document.activeElement.id")
    page.keyboard.type("2j/")
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    shows(page, "12 of 30")
    page.keyboard.press("Escape")
    assert "list" == page.evaluate("document.activeElement.id")
    page.keyboard.press("ArrowDown")
    title(page, "words_val 12")
    page.evaluate("document.getElementById('letters').checked = false")
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    title(page, "words_val 20")


def test_a_link_leads_to_one_sample(seen, made):
    """The address follows what is shown; opened anew it shows the same, with the same filters."""
    page = open_at(seen, made.two, "#task=words_val&id=17")
    title(page, "words_val 17")
    assert "#task=words_val&id=17" == page.get_attribute("text=Link to this sample", "href")
    pick(page, outcome_0="right")
    page.click(".row:nth-child(3)")
    title(page, "words_val 6")
    page.wait_for_function("() => location.hash === '#task=words_val&id=6&outcome-0=right'")
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    title(page, "words_val 6")
    shows(page, "10 of 30")
    page.evaluate("location.hash = '#task=words_val&id=7&outcome-0=right'")  # which leaves it out
    title(page, "words_val 7")
    shows(page, "30 of 30")
    page.evaluate("location.hash = '#task=boxes_val&id=2'")
    title(page, "boxes_val 2")
    page.evaluate("location.hash = '#task=words_val&id=99'")
    shows(page, "No sample 99 in words_val. 30 of 30")
    page.evaluate("location.hash = '#task=words_val&order=%00&group=%3D&from=x'")
    shows(page, "30 of 30")


def picture(page):
    """The picture as it is on the screen, and where in it a part of its sides lies."""
    page.wait_for_selector("figcaption:has-text('pixels')")
    place = page.locator(".picture > :first-child").bounding_box()
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")

    def at(x, y):
        return round(place["x"] + x * place["width"]), round(place["y"] + y * place["height"])

    return image, at


def near(image, point, colour, reach=2):
    """Whether the colour is within some pixels of a point."""
    x, y = point
    around = [(x + i, y + j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1)]
    return any(
        max(abs(a - b) for a, b in zip(image.getpixel(p), colour, strict=True)) < 24 for p in around
    )


def border(box, steps=40):
    """Points on the sides of a box, away from its corners, where names stand."""
    x1, y1, x2, y2 = box
    parts = [0.5 + 0.48 * (step / steps) for step in range(steps)]
    for part in parts:
        x, y = x1 + part * (x2 - x1), y1 + part * (y2 - y1)
        yield from ((x, y1), (x, y2), (x1, y), (x2, y))


def test_boxes_lie_where_they_belong(seen, made):
    """On a grey picture of 200 x 100 pixels the predicted box (300,400),(900,900) of the grid and
    the true one of (20,10),(120,60) pixels are drawn on their sides, and nowhere else.
    """
    page = open_at(seen, made.one, "#task=boxes_val&id=1")
    image, at = picture(page)
    predicted, true = (300 / 999, 400 / 999, 900 / 999, 900 / 999), (0.1, 0.1, 0.6, 0.6)
    assert all(near(image, at(*point), PREDICTED) for point in border(predicted))
    dashes = [near(image, at(*point), TRUE, reach=1) for point in border(true, 120)]
    assert 0.3 < sum(dashes) / len(dashes) < 0.95  # dashed: not by colour alone
    left, top = at(0, 0)
    right, bottom = at(1, 1)
    found = {PREDICTED: [], TRUE: []}
    for x in range(left, right):
        for y in range(top, bottom):
            for colour, points in found.items():
                if image.getpixel((x, y)) == colour:
                    points.append((x, y))
    for colour, box in ((PREDICTED, predicted), (TRUE, true)):
        (x1, y1), (x2, y2) = at(*box[:2]), at(*box[2:])
        xs, ys = zip(*found[colour], strict=True)
        assert abs(min(xs) - x1) <= 2
        assert abs(max(xs) - x2) <= 2
        name = 20  # the height of its name, which stands above or below
        assert y1 - name <= min(ys) <= y1
        assert y2 <= max(ys) + 2 <= y2 + name + 2
        inside = [(x, y) for x, y in found[colour] if x1 + 3 < x < x2 - 3 and y1 + 3 < y < y2 - 3]
        assert [] == inside
    assert GREY == image.getpixel(at(0.05, 0.95)) == image.getpixel(at(0.95, 0.05))
    assert GREY == image.getpixel(at(0.2, 0.2)) == image.getpixel(at(0.8, 0.8))
    page.set_viewport_size({"width": 1000, "height": 900})  # and so they do in another window
    image, at = picture(page)
    assert all(near(image, at(*point), PREDICTED) for point in border(predicted))


def test_two_runs_boxes_are_told_apart(seen, made):
    """By line and by name, in a legend and in words; where both lie in one place both are seen."""
    page = open_at(seen, made.two, "#task=boxes_val&id=1")
    image, at = picture(page)
    assert all(near(image, at(*p), PREDICTED) for p in border((0.3, 0.4, 0.9, 0.9)))
    dots = [near(image, at(*p), SECOND, reach=1) for p in border((0.1, 0.1, 0.6, 0.6))]
    assert sum(dots) > 5
    legend = ["box of base (solid)", "box of tuned (dotted)", "true box (dashed)"]
    assert legend == [t.strip() for t in page.locator(".legend li").all_text_contents()]
    assert [
        "Boxes: base from 30% left, 40% top to 90% left, 90% top; "
        "tuned from 10% left, 10% top to 60% left, 60% top; "
        "true from 10% left, 10% top to 60% left, 60% top"
    ] == page.locator("svg.boxes").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    page.keyboard.press("k")
    title(page, "boxes_val 0")
    image, at = picture(page)
    for colour in (PREDICTED, SECOND):
        assert any(near(image, at(*p), colour, reach=1) for p in border((0.1, 0.1, 0.6, 0.6)))
    page.keyboard.press("j")
    page.keyboard.press("j")
    title(page, "boxes_val 2")
    assert ["box of tuned (dotted)", "true box (dashed)"] == [
        t.strip() for t in page.locator(".legend li").all_text_contents()
    ]


@pytest.mark.parametrize("fragment", ["boxes_val&id=1", "words_val&id=29", "ranked_val"])
def test_axe_finds_nothing(seen, made, fragment):
    """Roles, names, contrast, alt texts, headings, keys: in pages of one run and of two."""
    for pages in (made.one, made.two):
        seen.page.goto("about:blank")
        page = open_at(seen, pages, f"#task={fragment}")
        page.wait_for_function("() => [...document.images].every(image => image.complete)")
        page.evaluate("document.querySelector('details').open = true")
        assert [] == wrong(seen)
    pick(page, search="nothing has this id")
    shows(page, "0 of")
    assert [] == wrong(seen)
    # axe itself would fetch the style sheet, and may not
    seen.complaints[:] = [c for c in seen.complaints if "preload" not in c and "app.css" not in c]


def test_hostile_texts_are_texts(seen, made):
    """Ids, questions, answers, references and groups that are markup, scripts, marks of direction
    or 100,000 characters long are shown as they are, run nothing, and leave the page in its shape.
    """
    samples = [
        Sample(
            text[:MAX_ID_CHARACTERS] or "(empty)",
            {"image": "a.png", "question": text},
            [text, "</li>"],
            groups={"kind": text},
        )
        for text in HOSTILE
    ]
    task = make_task(samples, "hostile_val", metrics={"any": lambda text, reference: 1.0})
    root = made.root / "hostile"
    name = "run <script>window.hacked = 1</script> \u202e"
    answers = [Prediction(s.id, s.fields["question"]) for s in samples]
    failed = [Prediction(s.id, "", error=s.fields["question"] or "none") for s in samples]
    runs = [
        make_run(root / "a", made.data, [(task, answers)]),
        make_run(root / "b", made.data, [(task, failed)], scored=False),
    ]
    for run in runs:
        run.manifest["name"] = name
    page = open_at(seen, build_browser(runs, [task], made.data, root / "out"))
    shows(page, f"{len(HOSTILE)} of {len(HOSTILE)}")
    elements = page.evaluate(
        "document.querySelectorAll('#rows script, #rows svg, #sample script, #sample b').length"
    )
    page.focus("#list")
    for text in HOSTILE:
        shown = [page.text_content(".asked"), page.text_content(".said .text")]
        plain = text.isprintable() and len(text) < 1000
        if plain and text:
            assert [text, text] == shown
        assert not set(MARKS) & set(page.text_content("body"))
        sizes = page.evaluate(BEYOND)
        assert max(sizes) <= 0, text[:80]
        heights = page.locator(".row").evaluate_all("rows => rows.map(row => row.offsetHeight)")
        assert {56} == {*heights}
        before = page.text_content("#title")
        page.keyboard.press("ArrowDown")
        if text != HOSTILE[-1]:
            page.wait_for_function(
                "text => document.getElementById('title').textContent !== text", arg=before
            )
    assert elements == 0
    assert page.evaluate("window.hacked === undefined && Object.prototype.hacked === undefined")
    assert 0 == page.locator("#sample script, #rows script, #sample b").count()
    pick(page, where="texts", search="<script>")
    shows(page, "3 of")
    page.evaluate(
        "id => location.hash = new URLSearchParams({task: 'hostile_val', id})", HOSTILE[1]
    )
    title(page, f"hostile_val {HOSTILE[1]}")


def test_two_hundred_thousand_samples_scroll(seen, made):
    """The page has the rows that are seen and some more, wherever it is scrolled to; a jump to the
    end is one step; what was passed over is not loaded.
    """
    root = made.root / "many"
    right, wrong = (AnswerView("dog", values={"vqa_accuracy": value}) for value in (1.0, 0.0))
    shared = ((("question", "What is it?"),), "What is it?", ("a.png",), (("dog", 10),), ())
    rows = (
        SampleView(str(n), *shared, {}, None, (right, right if n % 7 else wrong))
        for n in range(MANY)
    )
    told = write_task(root / "data" / "vqav2_val", "vqav2_val", rows)
    about = {"graded": False, "protocols": ["published", "published"], "differ": []}
    about["unverified"] = ["", ""]
    head = {"runs": ["a", "b"], "pictures": "../data/", "longest": 1, "tasks": [told | about]}
    (root / "data" / "tasks.js").write_bytes(sample_data_script("tasks", head))
    for file in ASSETS.iterdir():
        shutil.copyfile(file, root / file.name)
    page = open_at(seen, root / "index.html")
    shows(page, "200,000 of 200,000")
    before = page.evaluate("document.querySelectorAll('*').length")

    def chunks():
        return [url for url in seen.requests if "chunk-" in url]

    page.focus("#list")
    page.keyboard.press("End")
    title(page, f"vqav2_val {MANY - 1}")
    assert str(MANY) == page.locator(".row").last.get_attribute("aria-posinset")
    page.keyboard.press("Home")
    for part in (0.1, 0.5, 0.123, 0.99, 0.25):
        page.evaluate(
            """part => {
              const list = document.getElementById("list");
              list.scrollTop = part * list.scrollHeight;
              return new Promise((done) => setTimeout(done, 200));
            }""",
            part,
        )
        rows = page.evaluate(
            """() => {
              const box = document.getElementById("list").getBoundingClientRect();
              return [...document.querySelectorAll(".row")]
                .map((row) => [row, row.getBoundingClientRect()])
                .filter(([row, at]) => at.bottom > box.top && at.top < box.bottom)
                .map(([row, at]) => [at.top, at.bottom, row.querySelectorAll("bdi").length]);
            }"""
        )
        assert len(rows) >= page.locator("#list").bounding_box()["height"] // 56
        assert all(first[1] == second[0] for first, second in pairwise(rows))
        assert {4} == {texts for _, _, texts in rows}  # id, question and two answers
        assert page.locator(".row").count() < 60
    loaded = len(chunks())
    page.evaluate(
        """async () => {
          const list = document.getElementById("list");
          for (let n = 0; n < 60; n++) {
            list.scrollTop = n * 150000;
            await new Promise(requestAnimationFrame);
          }
          return new Promise((done) => setTimeout(done, 300));
        }"""
    )
    assert len(chunks()) <= loaded + 2
    for _ in range(30):
        page.mouse.move(200, 500)
        page.mouse.wheel(0, 900)
    assert page.evaluate("document.querySelectorAll('*').length") < before + 400
    assert page.locator("img").count() < 60
    assert len({*chunks()}) < 20  # of 400
    page.wait_for_function("() => !document.querySelector('script[src*=chunk]')")
    pick(page, outcome_0="right", flip="worse")
    shows(page, "28,572 of 200,000")
    page.keyboard.press("Escape")
    page.keyboard.press("End")
    assert page.locator(".row").count() < 60


def test_a_list_taller_than_browsers_draw_is_scrolled_to_its_ends(seen, made):
    """A million rows would be 56 million pixels: the bar stands for more than it has, and every row
    is reached, by keys and by the bar.
    """
    page = open_at(seen, made.one, "#task=words_val")
    shows(page, "30 of 30")
    page.evaluate("list.show(Uint32Array.from({length: 1e6}, (_, n) => tasks[1].first + n % 30))")
    assert page.evaluate("document.getElementById('list').scrollHeight") <= 16e6
    page.focus("#list")

    def drawn():
        return page.evaluate(
            """() => {
              const box = document.getElementById("list").getBoundingClientRect();
              return [...document.querySelectorAll(".row")]
                .map((row) => [Number(row.ariaPosInSet), row.getBoundingClientRect()])
                .filter(([_, at]) => at.bottom > box.top + 1 && at.top < box.bottom - 1)
                .map(([position, at]) => [position, at.top - box.top, box.bottom - at.bottom]);
            }"""
        )

    page.keyboard.press("End")
    assert (1_000_000, pytest.approx(0, abs=5)) == (drawn()[-1][0], drawn()[-1][2])
    page.keyboard.press("ArrowUp")
    assert "row-999998" == page.get_attribute("#list", "aria-activedescendant")
    for _ in range(20):
        page.keyboard.press("PageUp")
        at = int(page.get_attribute("#list", "aria-activedescendant").removeprefix("row-"))
        assert at + 1 in [position for position, _, _ in drawn()]
    page.keyboard.press("Home")
    assert (1, pytest.approx(0, abs=1)) == tuple(drawn()[0][:2])
    page.evaluate("document.getElementById('list').scrollTop = 8e6")
    page.wait_for_function("() => Math.abs(document.querySelector('.row').dataset.at - 5e5) < 100")
    positions = [position for position, _, _ in drawn()]
    assert positions == [*range(positions[0], positions[0] + len(positions))]
    assert page.locator(".row").count() < 60


def test_a_copied_folder_can_be_moved(seen, made):
    """With its pictures in it, it needs nothing that lies beside it."""
    out = made.root / "copied"
    build_browser(made.runs[:1], made.tasks, made.data, out, COPY)
    moved = made.root / "elsewhere" / "deep"
    moved.parent.mkdir()
    out.rename(moved)
    page = open_at(seen, moved / "index.html", "#task=boxes_val&id=1")
    image, at = picture(page)
    assert GREY == image.getpixel(at(0.95, 0.05))
    assert all(moved.as_uri() in url for url in seen.requests if not url.startswith("data:"))


def test_a_missing_picture_is_told(seen, made):
    """In words, where it would be; all else is there."""
    task = make_task([question(0, image="gone.png")], "gone_val")
    run = make_run(made.root / "gone", made.data, [(task, ["cat"])])
    page = open_at(seen, build_browser([run], [task], made.data, made.root / "gone-out"))
    page.wait_for_selector("#sample .problem")
    assert "cannot be shown" in page.text_content("#sample .problem")
    assert "What is it?" == page.text_content(".asked")
    seen.complaints.clear()  # the browser's own, of the file that is not there


def test_a_picture_stands_as_the_model_saw_it(seen, made):
    """A camera's note on how to turn the picture is not followed: boxes would lie elsewhere."""
    turned = Image.new("RGB", (200, 100), (128, 128, 128))
    turned.paste((255, 0, 0), (0, 0, 100, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    turned.save(made.data / "turned.jpg", exif=exif, quality=95)
    task = make_task([question(0, image="turned.jpg")], "turned_val")
    run = make_run(made.root / "turned", made.data, [(task, ["cat"])])
    page = open_at(seen, build_browser([run], [task], made.data, made.root / "turned-out"))
    image, at = picture(page)
    left, top = at(0, 0)
    right, bottom = at(1, 1)
    assert pytest.approx(2, abs=0.05) == (right - left) / (bottom - top)
    assert image.getpixel(at(0.25, 0.5))[0] > 240 > 140 > image.getpixel(at(0.75, 0.5))[0]
