"""Sampling: what is drawn depends on the question's seed and its scores, and on nothing else."""

import json
import math
import random
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from small import command, make_checkpoint

from eval import journal
from eval.api import (
    CHATML,
    Generate,
    Layout,
    Nucleus,
    Prediction,
    Rank,
    Request,
    Sample,
    Source,
    Task,
)
from eval.asked import Asked, describe_task, requests
from eval.engine.plain import PlainEngine
from eval.engine.shared import SharedEngine
from eval.errors import DataError, UsageError
from eval.launch.plan import Plan
from eval.prompt import fill
from eval.run import RunFolder
from eval.runtime import QwenVL
from eval.runtime.generation import LIKELY, Sampling, sample

PICTURES = 3
NEAR = 1e-9  # of a bound, where two ways to add up may fall on different sides


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Some pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture(scope="module")
def model(checkpoint):
    """Its scores are rather flat: a nucleus of 0.9 holds most of the 480 ids."""
    return QwenVL.from_pretrained(checkpoint)


# -- one draw ------------------------------------------------------------------------------------


def generator(seed):
    return np.random.Generator(np.random.PCG64(seed))


def by_sorting_all(scores, how, uniform):
    """The id, and how near the draw or the nucleus was to a bound: nothing is left out or fast."""
    order = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    order = order[: how.top_k or None]
    weights = [math.exp((scores[token] - scores[order[0]]) / how.temperature) for token in order]
    whole = math.fsum(weights)
    until, near = [], math.inf
    for weight in weights:
        until.append((until[-1] if until else 0.0) + weight / whole)
        if len(until) < len(weights) and how.top_p < 1:
            near = min(near, abs(until[-1] - how.top_p))
            if until[-1] >= how.top_p:
                break
    drawn = uniform * until[-1]
    place = next((n for n, total in enumerate(until) if total > drawn), len(until) - 1)
    return order[place], min(near, *(abs(total - drawn) for total in until))


@st.composite
def score_rows(draw, most=2000):
    """Scores of a vocabulary: flat, peaked, few levels, ties about the 64th place; some -inf."""
    size = draw(st.integers(2, most))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["flat", "normal", "peaked", "levels", "tied"]))
    if kind == "flat":
        scores = np.full(size, draw(st.floats(-30, 30)))
    elif kind == "levels":
        scores = noise.integers(0, draw(st.integers(2, 20)), size) * draw(st.floats(0.01, 3))
    else:
        scale = draw(st.floats(5, 40) if kind == "peaked" else st.floats(0.001, 4))
        scores = noise.normal(0, scale, size)
    if kind == "tied":  # ranks from below the 64th to above it are equal
        first = draw(st.integers(LIKELY - 30, LIKELY + 2))
        order = np.argsort(-scores)[first : first + draw(st.integers(2, 90))]
        scores[order] = scores[order].max(initial=-50)
    forbidden = noise.random(size) < draw(st.sampled_from([0, 0, 0.1, 0.95]))
    forbidden[noise.integers(size)] = False
    scores[forbidden] = -np.inf
    return scores.astype(draw(st.sampled_from([np.float32, np.float64])))


@settings(max_examples=200, deadline=None)
@given(
    scores=score_rows(),
    top_p=st.floats(0.01, 1) | st.sampled_from([0.3, 0.5, 1.0]),
    top_k=st.sampled_from([0, 0, 0, 1, 5, LIKELY, 100, 5000]),
    temperature=st.sampled_from([1.0, 1.0, 0.5, 3.0]),
    seed=st.integers(0, 2**63 - 1),
)
def test_an_id_is_drawn_as_by_sorting_all(scores, top_p, top_k, temperature, seed):
    """That a nucleus is looked for among the 64 likeliest first changes no id.

    The scores stay as they are, and one number is drawn, so that the next step draws the second.
    """
    how = Sampling(top_p, top_k, temperature)
    rows, drawn, beside = torch.tensor(scores)[None], generator(seed), generator(seed)
    expected, near = by_sorting_all(scores.tolist(), how, beside.random())
    assume(near > NEAR)
    assert [expected] == sample(rows, how, [drawn]).tolist()
    assert np.array_equal(scores, rows[0].numpy())
    assert beside.bit_generator.state == drawn.bit_generator.state


@pytest.mark.parametrize(
    ("scores", "top_p", "expected"),
    [
        ([0.0, 0.0], 0.5, {0}),
        ([0.0, 0.0, 0.0, 0.0], 0.5, {0, 1}),
        ([0.0, 0.0, 0.0, 0.0], 0.500001, {0, 1, 2}),
        ([0.0] * 200, 0.25, set(range(50))),
        ([-1.0] * 30 + [0.0] * 100, 0.01, {30, 31}),  # 1.1 and 0.9 of a hundredth
        ([-math.inf, 1.0, -math.inf], 1.0, {1}),
        ([-math.inf] * 500 + [1.0, 1.0], 1.0, {500, 501}),
    ],
)
def test_the_nucleus_is_the_smallest_that_reaches_top_p(scores, top_p, expected):
    """Counted where ids tie: exactly so many of the lowest, and none that is forbidden."""
    rows = torch.tensor([scores] * 2000)
    draws = [generator(seed) for seed in range(2000)]
    assert expected == set(sample(rows, Sampling(top_p), draws).tolist())


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(score_rows(most=300), min_size=1, max_size=6),
    top_p=st.floats(0.01, 1),
    seed=st.integers(0, 99),
)
def test_a_row_draws_the_same_beside_others(rows, top_p, seed):
    """Whatever the other rows of a step are, those that need all ids sorted among them."""
    width = max(map(len, rows))
    padded = [np.pad(row, (0, width - len(row)), constant_values=-np.inf) for row in rows]
    scores = torch.tensor(np.array(padded, dtype=np.float64))
    seeds = [seed * n for n in range(len(rows))]
    together = sample(scores, Sampling(top_p), [generator(seed) for seed in seeds]).tolist()
    alone = [
        int(sample(scores[n : n + 1], Sampling(top_p), [generator(seed)])[0])
        for n, seed in enumerate(seeds)
    ]
    assert alone == together


# -- engines -------------------------------------------------------------------------------------


def image(number):
    return f"<img>{number}.png</img>"


def drawn(name, prompt, seed=0, most=9, top_p=0.9, chat=False):
    return Request(name, prompt, Nucleus(most, 0, top_p, seed).drawn(name), chat)


def mixed(seed=0):
    """Sampled, greedy and ranked questions, raw and in dialogues, many on one picture."""
    made = []
    for n in range(28):
        prompt = f"{image(n % PICTURES)}What is number {n}? Answer:"
        if n % 7 == 5:
            made.append(Request(f"task/{n}", prompt, Generate(7), chat=n % 2 == 0))
        elif n % 7 == 6:
            made.append(Request(f"task/{n}", prompt, Rank((" A", " B", " other"))))
        else:
            top_p = (0.05, 0.3, 0.9, 1.0)[n % 4]
            made.append(drawn(f"task/{n}", prompt, seed, 4 + n % 9, top_p, chat=n % 3 == 0))
    made.append(drawn("task/two", f"{image(0)}{image(1)}Which?", seed, chat=True))
    made.append(drawn("task/none", "Which?", seed))
    made.append(Request("task/least", f"{image(0)}Say", Nucleus(9, 9, 1.0, 3)))
    return made


def answers(engine, asked):
    found = {prediction.id: prediction for prediction in engine.answer(asked)}
    assert {request.id for request in asked} == found.keys()
    assert not any(prediction.error for prediction in found.values())
    return found


def told(predictions):
    """All but losses, whose last digits depend on what is computed together."""
    return {name: (p.text, p.tokens, p.seed) for name, p in predictions.items()}


@pytest.fixture(scope="module")
def expected(model, root):
    return told(answers(PlainEngine(model, root), mixed()))


@pytest.mark.parametrize(
    ("rows", "memory"), [(1, 1 << 30), (3, 1), (3, 1 << 21), (64, 1 << 21), (64, 1 << 30)]
)
def test_engines_draw_the_same(model, root, expected, rows, memory):
    """In float32 the shared engine gives the plain one's ids for any pool, memory and order."""
    for order in range(2):
        asked = random.Random(order).sample(mixed(), len(mixed()))
        engine = SharedEngine(model, root, rows=rows, memory=memory, packed=rows * 300)
        assert expected == told(answers(engine, asked))
        assert expected == told(answers(engine, asked[::-1]))  # and when it is asked again


@pytest.mark.parametrize("size", [2, 4])
def test_batches_draw_the_same(model, root, size):
    """Below the trained length padding moves no score, and a row's draw is its own.

    Dialogues here have no picture: with one they are longer than the model was trained on.
    """
    asked = [
        drawn(f"task/{n}", f"{image(n % PICTURES)}{'word ' * (n % 5)}What?", most=8)
        for n in range(9)
    ]
    asked += [drawn(f"task/t{n}", "word " * n, top_p=0.6, chat=n % 3 > 0) for n in range(1, 9)]
    expected = told(answers(PlainEngine(model, root), asked))
    assert expected == told(answers(PlainEngine(model, root, batch_size=size), asked))


def test_a_seed_tells_what_is_drawn(model, root):
    """The same seed gives the same texts, another seed others; a greedy answer has none."""
    first = answers(SharedEngine(model, root), mixed())
    assert told(first) == told(answers(SharedEngine(model, root), mixed()))
    for engine in (SharedEngine(model, root), PlainEngine(model, root)):
        other = answers(engine, mixed(seed=1))
        for request in mixed(seed=1):
            before, now = first[request.id], other[request.id]
            if isinstance(request.decode, Nucleus):
                assert request.decode.seed == now.seed
            else:
                assert now.seed is None
                assert before.tokens == now.tokens
        changed = [name for name in first if first[name].tokens != other[name].tokens]
        assert len(changed) >= 15


def test_each_question_has_a_seed_of_its_own(model, root):
    """One prompt under many ids gives many texts, each that of its id, asked alone or not."""
    asked = [drawn(f"task/{n}", f"{image(0)}What?") for n in range(12)]
    found = answers(SharedEngine(model, root), asked)
    for request in asked:
        assert Nucleus(9, top_p=0.9).drawn(request.id).seed == found[request.id].seed
    assert 12 == len({prediction.tokens for prediction in found.values()})
    (alone,) = SharedEngine(model, root).answer(asked[7:8])
    assert found["task/7"] == alone


def test_a_sampled_answer_keeps_its_bounds(model, root):
    """It ends at the maximum, or at `<|endoftext|>`, which is not drawn before the minimum."""
    end = model.tokenizer.eod_id
    asked = [Request(f"task/{n}", "Say", Nucleus(40, 0, 1.0, n)) for n in range(60)]
    late = [replace(r, id=f"{r.id}l", decode=replace(r.decode, min_new_tokens=40)) for r in asked]
    for engine in (SharedEngine(model, root), PlainEngine(model, root, batch_size=16)):
        found = answers(engine, asked)
        lengths = {len(prediction.tokens) for prediction in found.values()}
        assert 40 == max(lengths) > min(lengths)
        for prediction in found.values():
            assert end not in prediction.tokens[:-1]
            assert 40 == len(prediction.tokens) or end == prediction.tokens[-1]
        found = answers(engine, late)
        assert {(40, False)} == {(len(p.tokens), end in p.tokens) for p in found.values()}
    (none,) = SharedEngine(model, root).answer([Request("task/0", "Say", Nucleus(0, 0, 0.5, 3))])
    assert ("", (), 3) == (none.text, none.tokens, none.seed)


def teach(model, root, lessons):
    """Make a model answer requests with these tokens: its last layer is solved for them."""
    states, wanted = [], []
    with torch.inference_mode():
        for request, tokens in lessons:
            ids, paths = model.read(request.prompt, root, request.chat)
            for place, token in enumerate(tokens):
                hidden, _ = model.model(*model._batch([[*ids, *tokens[:place]]], paths))
                states.append(hidden[0, -1].double())
                wanted.append(token)
    weights = model.model.lm_head.weight.data
    scores = torch.zeros(len(wanted), len(weights), dtype=torch.float64)
    scores[range(len(wanted)), wanted] = 30
    weights.copy_((torch.linalg.pinv(torch.stack(states)) @ scores).T)


@pytest.mark.parametrize("decode", [Nucleus(6, top_p=0.9), Generate(6), Generate(6, 5)])
def test_a_dialogue_ends_at_either_control_token(root, tmp_path, decode):
    """After `<|im_start|>` as after `<|im_end|>` nothing but `<|endoftext|>` follows; raw goes on.

    Both end it before the minimum too; and where one is the last of the maximum nothing follows.
    """
    model = QwenVL.from_pretrained(make_checkpoint(tmp_path / "model"))
    words = model.tokenizer
    a, b, start, close, end = *b"ab", words.im_start_id, words.im_end_id, words.eod_id
    lessons = []
    for n in range(16):
        prompt = f"{image(0) if n < 4 else ''}{'word ' * n}?"
        stop = (start, close)[n % 2]
        lessons.append((Request(f"task/{n}", prompt, decode, chat=True), (a, stop)))
        lessons.append((Request(f"task/raw{n}", prompt, decode), (a, stop, b)))
    if isinstance(decode, Nucleus):
        lessons = [(replace(r, decode=decode.drawn(r.id)), tokens) for r, tokens in lessons]
    teach(model, root, lessons)
    for engine in (SharedEngine(model, root), PlainEngine(model, root)):
        found = answers(engine, [request for request, _ in lessons])
        for request, tokens in lessons:
            answer = found[request.id]
            if request.chat:
                assert ("a", (*tokens, end)) == (answer.text, answer.tokens)
            else:
                assert tokens == answer.tokens[:3]
        short = [
            replace(r, decode=replace(r.decode, max_new_tokens=2, min_new_tokens=0))
            for r, _ in lessons
        ]
        found = answers(engine, short)
        assert all(tokens[:2] == found[request.id].tokens for request, tokens in lessons)


# -- requests ------------------------------------------------------------------------------------


def read(root):
    """As many sketches as the file tells, the last with three pictures."""
    count = int((root / "sketch/count.txt").read_text())
    for n in range(count):
        fields = {"image": f"sketch/{n % PICTURES}.png", "question": f"What is number {n}?"}
        if n == count - 1:
            fields |= {"image_2": "sketch/1.png", "image_3": "sketch/2.png"}
        yield Sample(str(n), fields, reference="a")


def a_task(**changes):
    fields = {
        "size": None,
        "layouts": (Layout((Source("sketch/count.txt"),), read),),
        "prompt": "{pictures}{question}",
        "decode": Nucleus(20, top_p=0.9),
        "metrics": {"accuracy": lambda text, reference: float(text == reference)},
        "dialogue": True,
    }
    return Task("sketch_test", **{**fields, **changes})


@pytest.fixture
def data(tmp_path, root):
    """Four sketches."""
    folder = tmp_path / "data"
    shutil.copytree(root, folder / "sketch")
    (folder / "sketch" / "count.txt").write_text("4")
    return folder


ONE = Sample("1", {"image": "a.png", "question": "What?"})


def test_a_dialogue_s_request():
    """The published prompt is the user's turn, with a seed of its own; examples are refused."""
    request = a_task().request(ONE)
    assert ("sketch_test/1", "Picture 1: <img>a.png</img>\nWhat?", True) == (
        request.id,
        request.prompt,
        request.chat,
    )
    assert Nucleus(20, top_p=0.9).drawn("sketch_test/1") == request.decode
    other = a_task().request(replace(ONE, id="2"))
    assert request.decode.seed != other.decode.seed
    assert (request.prompt, replace(request.decode, seed=0)) == (
        other.prompt,
        replace(other.decode, seed=0),
    )
    with pytest.raises(UsageError, match="sketch_test: a dialogue takes no few-shot examples"):
        a_task().request(ONE, examples=[ONE])
    assert not a_task(dialogue=False).request(ONE).chat


def test_a_dialogue_in_the_other_protocol():
    """Protocol chatml asks its own prompt, which a dialogue need not have."""
    request = a_task(chat="{question} {pictures}").request(ONE, CHATML)
    assert ("What? Picture 1: <img>a.png</img>\n", True) == (request.prompt, request.chat)
    assert Nucleus(20, top_p=0.9).drawn("sketch_test/1") == request.decode
    with pytest.raises(UsageError, match="sketch_test: has no prompt in protocol chatml"):
        a_task().request(ONE, CHATML)


def test_another_way_to_decode():
    """What is given stands in for the task's own; its seed is made the request's, too."""
    assert Generate(3) == a_task().request(ONE, decode=Generate(3)).decode
    given = a_task().request(ONE, decode=Nucleus(20, top_p=0.9, seed=5)).decode
    assert Nucleus(20, top_p=0.9, seed=5).drawn("sketch_test/1") == given
    assert given != a_task().request(ONE).decode


@given(seed=st.integers(0, 2**40), name=st.text())
def test_seeds_fit_where_they_are_kept(seed, name):
    """Whatever the id, a seed is a number of 63 bits, the same each time, and only it changes."""
    how = Nucleus(5, 1, 0.4, seed)
    assert 0 <= how.drawn(name).seed < 2**63
    assert how.drawn(name) == how.drawn(name)
    assert how == replace(how.drawn(name), seed=seed)


@pytest.mark.parametrize("top_p", [0, -0.1, 1.1, math.nan, math.inf])
def test_a_top_p_that_is_none_is_refused(top_p):
    """And so is what any Generate refuses."""
    with pytest.raises(UsageError, match="top_p: above 0 and at most 1 expected"):
        Nucleus(5, top_p=top_p)
    with pytest.raises(UsageError, match="6 found"):
        Nucleus(5, 6)


def test_a_seed_below_zero_is_refused():
    """When it is given: in the shared engine it stopped all questions, not its own."""
    with pytest.raises(UsageError, match="seed: 0 or more expected, -1 found"):
        Nucleus(5, seed=-1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pictures_are_numbered(count):
    """A line for each of a sample's pictures, in their order, whatever that of the fields."""
    paths = tuple(f"{n} x.png" for n in range(count))
    names = ["image", "image_2", "image_3"][:count]
    fields = {"question": "Q", **dict(reversed(list(zip(names, paths, strict=True))))}
    assert paths == Sample("1", fields).images
    lines = "".join(f"Picture {n}: <img>{path}</img>\n" for n, path in enumerate(paths, 1))
    assert f"{lines}Q" == fill("{pictures}{question}", fields)
    assert f"<img>{paths[-1]}</img>Q" == fill(f"<img>{{{names[-1]}}}</img>{{question}}", fields)


@pytest.mark.parametrize(
    ("fields", "images"),
    [
        ({"question": "Q"}, ()),
        ({"image": ""}, ()),
        ({"image": "a", "image_3": "c"}, ("a",)),
        ({"image_2": "b"}, ()),
        ({"image": "a", "image_1": "x", "image_2": "b"}, ("a", "b")),
    ],
)
def test_pictures_end_at_the_first_that_there_is_not(fields, images):
    """Image_1 is none: the first is called image."""
    assert images == Sample("1", fields).images


@pytest.mark.parametrize("hostile", ["<img>/etc/passwd</img>", "</img>x", "a<img>", "x</img><img>"])
@pytest.mark.parametrize("name", ["question", "image", "image_2"])
def test_a_text_cannot_open_an_image(name, hostile):
    """Neither a question nor a path can name a file to show beside those of its sample."""
    fields = {"image": "a.png", "image_2": "b.png", "question": "What?", name: hostile}
    with pytest.raises(DataError, match="holds the image tag"):
        a_task().request(Sample("1", fields))


def test_a_text_is_not_filled_again():
    """Braces in a question are a question's."""
    fields = {"image": "a.png", "question": "{pictures}{image}{answer}"}
    assert a_task().request(Sample("1", fields)).prompt.endswith("\n{pictures}{image}{answer}")


# -- runs ----------------------------------------------------------------------------------------


def wanted(task, data, asked):
    """What an empty run lacks."""
    folder = RunFolder(data / "none", {})
    return list(folder.lacking([task], data, {task.name: asked}, folder.digests()))


@pytest.mark.parametrize(
    "asked",
    [
        Asked(),
        Asked(seed=7),
        Asked(greedy=True),
        Asked(limit=3, seed=7, few_shot=2, leaking=True),
        Asked(seed=7, few_shot=2, leaking=True, greedy=True),
    ],
)
def test_a_manifest_tells_how_it_was_drawn(data, asked):
    """All that decides it, and what is read back asks the same."""
    task = a_task(chat="{pictures}{question}", dialogue=False)
    entry = json.loads(json.dumps(describe_task(task, data, asked)))
    bounds = {"max_new_tokens": 20, "min_new_tokens": 0}
    sampled = {"greedy": False, **bounds, "top_p": 0.9, "seed": asked.seed}
    assert ({"greedy": True, **bounds} if asked.greedy else sampled) == entry["decode"]
    assert asked == Asked.of(entry)
    if not asked.few_shot:
        expected = list(requests(task, data, asked))
        assert expected == list(requests(task, data, Asked.of(entry)))
        if not asked.greedy:
            how = Nucleus(20, top_p=0.9, seed=asked.seed)
            assert all(how.drawn(request.id) == request.decode for _, request in expected)
        else:
            assert {Generate(20)} == {request.decode for _, request in expected}


def test_what_is_drawn_otherwise_is_asked_again(data):
    """An answer of another seed, or of the best tokens, is no answer to what is asked now."""
    told = [
        {each.of for each in wanted(a_task(), data, asked)}
        for asked in (Asked(), Asked(seed=1), Asked(greedy=True), Asked(seed=1, greedy=True))
    ]
    assert [4, 4, 4, 4] == [len(identities) for identities in told]
    assert told[2] == told[3]
    assert 12 == len(told[0] | told[1] | told[2])
    assert told[0] == {each.of for each in wanted(a_task(), data, Asked())}


@pytest.mark.parametrize("decode", [Generate(5), Rank])
def test_a_task_that_does_not_sample_has_no_seed(data, decode):
    """Neither a seed nor --greedy makes it another run."""
    task = a_task(decode=decode)
    entries = [describe_task(task, data, asked) for asked in (Asked(), Asked(seed=3, greedy=True))]
    assert entries[0] == entries[1]
    assert wanted(task, data, Asked()) == wanted(task, data, Asked(seed=3, greedy=True))
    assert wanted(task, data, Asked()) == wanted(task, data, Asked.of(entries[0]))


@pytest.mark.parametrize("seed", [None, 0, 2**63 - 1])
def test_a_line_keeps_the_seed(seed):
    """Zero, too, and the largest."""
    line = journal.line(Prediction("1", "a", (5,), seed=seed), "of")
    assert (seed is not None) == (b"seed" in line)
    assert seed == journal.parse(line, "here").prediction.seed


def test_a_plan_keeps_how_a_question_is_drawn(data):
    """Workers are told by it what to ask; a seed of 63 bits is not rounded on the way."""
    expected = wanted(a_task(decode=Nucleus(20, 2, top_p=0.1 + 0.2)), data, Asked(seed=3))
    plan = Plan.write(data / "plan", expected, alone=True)
    found = [plan.group(number).requests[0] for number in range(plan.groups)]
    plan.close()
    assert sorted((each.request for each in expected), key=str) == sorted(found, key=str)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A package that offers the task, as its benchmark is published, and one of 512 tokens."""
    lines = (
        "from test_sampling import Nucleus, a_task, replace",
        "TASKS = (a_task(), replace(a_task(decode=Nucleus(512)), name='sketch_long'))",
    )
    (tmp_path / "lab_sketch.py").write_text("\n".join(lines))
    info = tmp_path / "lab_sketch-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-sketch\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[eval.tasks]\nlab = lab_sketch\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("lab_sketch", None)


@pytest.fixture
def run(lab, checkpoint, data):
    def start(out, *more, task="sketch_test", code=0):
        done = command("run", task, "--model", checkpoint, "--data", data, "--out", out, *more)
        assert code == done.returncode, done.stderr
        return done

    return start


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("more", "size"), [((), 1), (("--batch-size", "2"), 2), (("--memory", "1KiB"), 1)]
)
def test_a_run_records_what_was_drawn(run, model, data, tmp_path, more, size):
    """Each line has the seed of its question, with which the engine gives the same tokens."""
    run(tmp_path / "run", "--seed", "5", *more)
    asked = [request for _, request in requests(a_task(), data, Asked(seed=5))]
    expected = {
        name.partition("/")[2]: (p.text, list(p.tokens), Nucleus(20, 0, 0.9, 5).drawn(name).seed)
        for name, p in answers(PlainEngine(model, data, size), asked).items()
    }
    for name in ("predictions.jsonl", "journal-0.jsonl"):
        found = rows(tmp_path / "run" / "sketch_test" / name)
        assert expected == {r["id"]: (r["text"], r["tokens"], r["seed"]) for r in found}


def test_a_figure_says_how_it_was_drawn(run, tmp_path):
    """In the run's manifest and beside the figure: most and least tokens, top_p and seed."""
    for more, decode in (
        ((), "nucleus:512/0/0.3/0"),
        (("--seed", "12"), "nucleus:512/0/0.3/12"),
        (("--seed", "12", "--greedy"), "greedy:512/0"),
    ):
        out = tmp_path / decode.replace("/", "-")
        done = run(out, "--limit", "1", *more, task="sketch_long")
        assert f" decode={decode} " in done.stdout
        scored = command("score", out)
        assert f" decode={decode} " in scored.stdout
    told = json.loads((tmp_path / "nucleus:512-0-0.3-12" / "manifest.json").read_text())
    expected = {
        "greedy": False,
        "max_new_tokens": 512,
        "min_new_tokens": 0,
        "top_p": 0.3,
        "seed": 12,
    }
    assert expected == told["tasks"]["sketch_long"]["decode"]


def test_another_seed_is_another_run(run, tmp_path):
    """It goes on with its own seed alone; answers drawn otherwise are never mixed in."""
    out = tmp_path / "run"
    run(out, "--seed", "5", "--limit", "2")
    kept = {path: path.read_bytes() for path in out.rglob("*.json*")}
    for more in (("--seed", "6"), (), ("--seed", "5", "--greedy")):
        done = run(out, "--limit", "2", *more, code=2)
        assert "differs in sketch_test decode" in " ".join(done.stderr.split())
    assert "loading" not in run(out, "--seed", "5", "--limit", "2").stderr
    assert kept.keys() == {*out.rglob("*.json*")}
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_a_stopped_run_ends_in_the_same_draws(run, tmp_path):
    """What is asked later draws as if it had been asked before; a replay keeps the seeds."""
    for name in ("whole", "stopped"):
        run(tmp_path / name)
    folder = tmp_path / "stopped" / "sketch_test"
    journal_file = folder / "journal-0.jsonl"
    journal_file.write_bytes(b"".join(journal_file.read_bytes().splitlines(True)[:1]))
    (folder / "predictions.jsonl").unlink()
    assert "3 answers" in run(tmp_path / "stopped").stderr
    run(tmp_path / "replayed", "--model", tmp_path / "whole", "--backend", "replay")
    whole, *others = (
        (tmp_path / name / "sketch_test" / "predictions.jsonl").read_bytes()
        for name in ("whole", "stopped", "replayed")
    )
    assert [whole, whole] == others
