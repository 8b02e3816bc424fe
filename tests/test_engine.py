"""The shared engine beside the plain one: the same answers, each image and each prefix once."""

import random
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small import make_checkpoint

from eval.api import Generate, Rank, Request
from eval.engine.kv_cache import Pool
from eval.engine.plain import GENERATION, PlainEngine
from eval.engine.plan import MAX_QUESTIONS, Group, Plan
from eval.engine.sequence import Prefix, Sequence
from eval.engine.shared import PULLED, SharedEngine, open_backend
from eval.errors import UsageError
from eval.runtime import QwenVL
from eval.runtime.language import MAX_SLOTS

PICTURES = 4
SPAN = 258  # tokens of an image
LOSS = 1e-3  # largest difference of two losses, as in golden/parity


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Some pictures, one of them under two names, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    shutil.copyfile(folder / "0.png", folder / "copy.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Small random models, by seed."""
    folder = tmp_path_factory.mktemp("models")
    return [
        QwenVL.from_pretrained(make_checkpoint(folder / str(seed), seed=seed)) for seed in (0, 1)
    ]


def question(number, image, text, decode, chat=False):
    return Request(f"task/{number}", f"{image}{text}", decode, chat)


def image(name):
    return f"<img>{name}.png</img>"


def questions(count, image_of, decode=None):
    """So many different questions; image_of(number) is the picture's name."""
    return [
        question(n, image(image_of(n)), f"What is number {n}? Answer:", decode or Generate(6))
        for n in range(count)
    ]


def answers(engine, requests):
    found = {prediction.id: prediction for prediction in engine.answer(requests)}
    assert {request.id for request in requests} == found.keys()
    return found


def assert_same(expected, found):
    for name, prediction in expected.items():
        other = found[name]
        for part in ("text", "tokens", "error"):
            assert getattr(prediction, part) == getattr(other, part), name
        assert prediction.losses == pytest.approx(other.losses, abs=LOSS), name


NAMES = st.sampled_from(["0", "1", "2", "3", "copy", "broken"])
TEXTS = st.text(alphabet="abc ?\n", min_size=1, max_size=80)
GENERATES = st.integers(0, 12).flatmap(
    lambda most: st.builds(Generate, st.just(most), st.integers(0, most))
)
RANKS = st.lists(st.text(alphabet="ABC ", min_size=1, max_size=5), min_size=1, max_size=5)


@st.composite
def prompts(draw):
    """Text with no image, one, two, or one that comes later; above the trained length with two."""
    parts = draw(st.lists(NAMES.map(image) | TEXTS, min_size=1, max_size=3))
    return "".join(parts)


@st.composite
def request_lists(draw):
    decodes = st.one_of(GENERATES, RANKS.map(lambda options: Rank(tuple(options))))
    made = draw(st.lists(st.tuples(prompts(), decodes, st.booleans()), min_size=1, max_size=16))
    return [Request(f"task/{n}", *rest) for n, rest in enumerate(made)]


@settings(max_examples=40)
@given(
    requests=request_lists(),
    seed=st.integers(0, 1),
    sequences=st.integers(1, 20),
    prefill_tokens=st.integers(1, 2000),
    memory=st.integers(1, 1 << 24),
    order=st.randoms(use_true_random=False),
)
def test_same_answers_as_the_plain_engine(
    models, root, requests, seed, sequences, prefill_tokens, memory, order
):
    """In float32: same ids, texts and reasons for any pool, memory, order and mix of requests."""
    expected = answers(PlainEngine(models[seed], root), requests)
    order.shuffle(requests)
    engine = SharedEngine(
        models[seed], root, sequences=sequences, prefill_tokens=prefill_tokens, memory=memory
    )
    assert_same(expected, answers(engine, requests))


def test_each_image_once_by_its_content(models, root):
    """Two names of one file are one image; questions far apart in the stream share it."""
    requests = questions(30, lambda n: ["0", "1", "copy"][n % 3])
    engine = SharedEngine(models[0], root)
    found = answers(engine, requests)
    assert 2 == engine.usage.images
    assert_same(answers(PlainEngine(models[0], root), requests), found)


def test_each_prefix_once_and_no_token_twice(models, root):
    """Counted: common tokens once for all sequences, others once, each new token but the last.

    All questions begin with an image and "What is number ".
    """
    requests = questions(20, lambda n: n % 2)
    lengths = [len(models[0].read(request.prompt)[0]) for request in requests]
    shared = SPAN + len("What is number ")
    for sequences, prefill_tokens in ((64, 4096), (3, 10)):
        engine = SharedEngine(models[0], root, sequences=sequences, prefill_tokens=prefill_tokens)
        found = answers(engine, requests)
        assert 2 * shared == engine.usage.prefix
        assert sum(lengths) - 20 * shared == engine.usage.suffix
        assert sum(len(p.tokens) - 1 for p in found.values()) == engine.usage.decoded
        assert 20 == engine.usage.answers


def test_options_of_one_token_need_one_pass(models, root):
    """Four one-token options: the prompt once and nothing else; longer ones add their tails."""
    prompt = f"{image(0)}Question? Answer:"
    length = len(models[0].read(prompt)[0])
    for options, tails in (("ABCD", 0), (("yes", "yet", "no"), 2 + 1)):
        engine = SharedEngine(models[0], root)
        answers(engine, [Request("task/0", prompt, Rank(tuple(options)))])
        # "yes" and "yet" have the same tail, "ye"
        assert (length + tails, 0) == (
            engine.usage.prefix + engine.usage.suffix,
            engine.usage.steps,
        )


def test_a_finished_sequence_makes_room_at_once(models, root):
    """Answers of 2 and 12 tokens in a pool of two: as many steps as the long one takes."""
    lengths = [12, 2, 2, 2, 2, 2]
    requests = [
        question(n, image(0), "What?", Generate(most, most)) for n, most in enumerate(lengths)
    ]
    engine = SharedEngine(models[0], root, sequences=2)
    answers(engine, requests)
    assert 11 == engine.usage.steps


@given(
    sequences=st.integers(1, 12),
    slots=st.integers(1, 4000),
    groups=st.lists(
        st.tuples(st.integers(0, 400), st.lists(st.integers(1, 200), min_size=1, max_size=6)),
        min_size=1,
        max_size=8,
    ),
    leaving=st.randoms(use_true_random=False),
)
def test_the_pool_never_exceeds_its_memory(sequences, slots, groups, leaving):
    """Whatever comes and goes; but a sequence that is alone with its prefix is always admitted."""
    pool = Pool(sequences, slots)
    for length, prompts in groups:
        prefix = Prefix(Group((), length, 1.0))
        waiting = [Sequence(None, prefix, [0] * tokens, max_new=4) for tokens in prompts]
        prefix.users = len(waiting)
        while waiting:
            alone = not pool.sequences and all(other is prefix for other in pool.prefixes)
            if entered := pool.admit(waiting[0]):
                waiting.pop(0)
            assert entered or not alone
            assert len(pool.sequences) <= sequences
            taken = sum(cache.entries * cache.width for cache in (pool.own, pool.shared))
            assert alone or not entered or taken <= slots
            assert [each.slots - 3 for each in pool.sequences] == pool.own.lengths
            assert [each.length for each in pool.prefixes] == pool.shared.lengths
            if not entered or leaving.random() < 0.3:
                removed = leaving.choice(pool.sequences)
                pool.remove(removed)
                removed.prefix.users -= 1
                if not removed.prefix.users:
                    pool.remove_prefix(removed.prefix)


@pytest.mark.parametrize("options", [(), ("A", "")])
def test_options_without_a_token_fail_alone(models, root, options):
    """With the reason; what stands beside them on the image is answered."""
    requests = questions(3, lambda n: 0)
    requests.insert(1, question(3, image(0), "Which?", Rank(options)))
    found = answers(SharedEngine(models[0], root), requests)
    assert "options of at least one token each expected" in found["task/3"].error
    del requests[1], found["task/3"]
    assert_same(answers(PlainEngine(models[0], root), requests), found)


def test_a_prompt_beyond_the_positions_fails_alone(models, root):
    """With its length; the others are answered, though it is the first on their image."""
    requests = questions(3, lambda n: 0)
    requests.insert(0, question(3, image(0), "a" * (MAX_SLOTS - SPAN), Generate(1)))
    found = answers(SharedEngine(models[0], root), requests)
    assert found["task/3"].error.startswith("a prompt of 32,767 tokens and its answer take 32,768")
    del requests[0], found["task/3"]
    assert_same(answers(PlainEngine(models[0], root), requests), found)


def test_refusals_come_as_they_are_pulled(models, root):
    """A stream of nothing else is not collected first."""
    pulled = []
    given = (question(n, "", "Which?", Rank(())) for n in range(2000))
    engine = SharedEngine(models[0], root)
    for count, prediction in enumerate(engine.answer(watched(given, pulled))):
        assert prediction.error
        assert len(pulled) <= count + 2 * PULLED["cpu"]
    assert 2000 == count + 1 == engine.usage.failed


class Stop(BaseException):
    """As KeyboardInterrupt, which pytest would take for its own."""


def watched(requests, pulled):
    """The requests; each is noted when it is pulled."""
    for request in requests:
        pulled.append(request.id)
        yield request


@pytest.mark.parametrize(("images", "on_an_image"), [(300, 1), (100, 20), (2, 1000)])
def test_requests_are_pulled_as_they_are_needed(models, tmp_path, images, on_an_image):
    """Never more than a batch and some groups beyond those that are answered or being answered.

    In the pool are at most 8 sequences, and of the last group some that wait; in the window of open
    groups are as many questions, or 16 groups, and one group more; in the plan a batch and what was
    held back of one group.
    """
    for number in range(images):
        Image.new("L", (8, 8), number % 256).resize((8 + number // 256, 8)).save(
            tmp_path / f"{number}.png"
        )
    most = min(on_an_image, MAX_QUESTIONS)
    bound = (8 + most) + (8 + most) + (PULLED["cpu"] + most)
    requests = questions(images * on_an_image, lambda n: n // on_an_image, Generate(2, 2))
    pulled = []
    engine = SharedEngine(models[0], tmp_path, sequences=8)
    for count, _ in enumerate(engine.answer(watched(requests, pulled))):
        assert len(pulled) <= count + bound
    assert len(requests) == len(pulled) == count + 1
    assert images == engine.usage.images


@given(
    names=st.lists(st.sampled_from("012"), min_size=1, max_size=40),
    batch=st.integers(1, 12),
    together=st.booleans(),
)
def test_the_plan_groups_neighbours(models, root, names, batch, together):
    """Each request once, one image a group; whole where those on one image stand together."""
    requests = questions(len(names), lambda n: sorted(names)[n] if together else names[n])
    groups = list(Plan(models[0], root, iter(requests), batch))
    assert sorted(requests, key=str) == sorted(
        (question.request for group in groups for question in group.questions), key=str
    )
    for group in groups:
        assert 1 == len({question.pictures for question in group.questions})
    if together:
        assert len(set(names)) == len(groups)


def test_the_plan_cuts_large_groups(models, root):
    """At so many questions, wherever the batches end."""
    requests = questions(2 * MAX_QUESTIONS + 10, lambda n: 0)
    for batch in (64, 100, MAX_QUESTIONS, 1000):
        groups = list(Plan(models[0], root, requests, batch))
        assert [MAX_QUESTIONS, MAX_QUESTIONS, 10] == [len(group.questions) for group in groups]


def test_a_group_across_batches_is_one(models, root):
    """Its image is encoded once and its prefix computed once, though batches end within it."""
    on_an_image = 50
    assert on_an_image < PULLED["cpu"] < 2 * on_an_image
    requests = questions(3 * on_an_image, lambda n: n // on_an_image, Generate(1))
    engine = SharedEngine(models[0], root)
    answers(engine, requests)
    assert 3 == engine.usage.images
    # numbers 0 to 49 share "What is number ", 50 to 99 the same, 100 to 149 the digit 1 too
    assert 3 * (SPAN + len("What is number ")) + 1 == engine.usage.prefix


@settings(max_examples=15)
@given(
    requests=request_lists(),
    cuts=st.lists(st.integers(0, 16), max_size=4),
    sequences=st.integers(1, 20),
    order=st.randoms(use_true_random=False),
)
def test_same_answers_in_any_order_and_any_parts(models, root, requests, cuts, sequences, order):
    """One engine that is asked again and again answers as one that is asked once; usage adds up."""
    expected = answers(SharedEngine(models[0], root), requests)
    order.shuffle(requests)
    engine = SharedEngine(models[0], root, sequences=sequences)
    found = {}
    bounds = [0, *sorted(cuts), len(requests)]
    for begin, end in pairwise(bounds):
        found |= answers(engine, requests[begin:end])
    assert_same(expected, found)
    assert len(requests) == engine.usage.answers
    assert sum(bool(prediction.error) for prediction in found.values()) == engine.usage.failed


def test_features_survive_between_calls(models, root):
    """The second call encodes nothing; what was counted before stays."""
    requests = questions(12, lambda n: n % PICTURES)
    engine = SharedEngine(models[0], root)
    expected = answers(engine, requests)
    once = replace(engine.usage)
    assert_same(expected, answers(engine, requests))
    assert PICTURES == engine.usage.images
    for name in ("answers", "prefix", "suffix", "decoded", "steps", "prefills"):
        assert 2 * getattr(once, name) == getattr(engine.usage, name), name
    assert engine.usage.elapsed_s > once.elapsed_s


def test_an_unreadable_image_fails_its_own_questions(models, root):
    """The reason stands in the prediction; all others are answered, also those beside it."""
    requests = questions(12, lambda n: ["0", "broken", "1"][n % 3])
    requests.append(question(12, image(0) + image("missing"), "Both?", Generate(4)))
    for engine in (
        SharedEngine(models[0], root),
        PlainEngine(models[0], root),
        PlainEngine(models[0], root, batch_size=3),
    ):
        found = answers(engine, requests)
        failed = {name for name, prediction in found.items() if prediction.error}
        assert {f"task/{n}" for n in (1, 4, 7, 10, 12)} == failed
        assert "broken.png" in found["task/1"].error
        assert "missing.png" in found["task/12"].error
        assert found["task/1"].tokens == ()


@pytest.mark.parametrize(("most", "least"), [(3, 4), (0, 1), (3, -1)])
def test_a_minimum_above_the_maximum_is_refused(most, least):
    """No such request can be made."""
    with pytest.raises(UsageError, match=f"{least} found"):
        Generate(most, least)


def test_overflow_fails_a_question_with_the_reason(models, root, tmp_path):
    """Scores that are no numbers are no answer."""
    model = QwenVL.from_pretrained(make_checkpoint(tmp_path / "overflowing"))
    model.model.lm_head.weight.data[5] = torch.inf
    requests = questions(3, lambda n: 0)
    requests.append(question(3, image(0), "A or B?", Rank((" A", " B"))))
    for engine in (SharedEngine(model, root), PlainEngine(model, root)):
        assert all(prediction.error for prediction in engine.answer(requests))


def test_an_image_tag_that_the_model_writes_is_a_token(root, tmp_path):
    """Nothing is spliced into a cached step, as in the original, and the answer can be decoded."""
    model = QwenVL.from_pretrained(make_checkpoint(tmp_path / "writer"))
    weights = model.model.lm_head.weight.data
    tag = model.tokenizer.img_start_id
    weights.zero_()
    weights[tag] = -1  # the best token wherever the hidden states' sum is below 0
    weights[tag + 1] = 1
    requests = questions(8, lambda n: n % PICTURES)
    found = answers(SharedEngine(model, root), requests)
    assert any(tag in prediction.tokens[:-1] for prediction in found.values())
    assert not any(prediction.error for prediction in found.values())
    assert_same(answers(PlainEngine(model, root), requests), found)


def test_bfloat16_flips_are_rare(tmp_path, root):
    """In bfloat16 rounding may move a close choice: most answers stay, and all are answered."""
    folder = make_checkpoint(tmp_path / "model")
    model = QwenVL.from_pretrained(folder, dtype="bfloat16")
    requests = questions(24, lambda n: n % PICTURES, Generate(4))
    plain, shared = (
        answers(engine(model, root), requests) for engine in (PlainEngine, SharedEngine)
    )
    same = sum(plain[name].tokens == shared[name].tokens for name in plain)
    assert same >= 18


MEMORY = """
import resource, sys
from pathlib import Path
from eval.api import Generate, Request
from eval.engine.shared import SharedEngine
from eval.runtime import QwenVL
model = QwenVL.from_pretrained(sys.argv[1])
model.model.lm_head.weight.data.zero_()
model.model.lm_head.weight.data[model.tokenizer.eod_id] = 1  # ends at once or never
end = model.tokenizer.eod_id
requests = [Request(f"t/{n}", f"word {n}", Generate(int(sys.argv[2]))) for n in range(40)]
engine = SharedEngine(model, Path("."), memory=1 << 40, sequences=40)
list(engine.answer(requests[:1]))  # threads and libraries are loaded
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
answered = list(engine.answer(requests))
print(len(answered), sum(bool(p.error) for p in answered))
"""


@pytest.mark.parametrize(("most", "told"), [(4000, "40 0"), (32000, "40 40")])
def test_out_of_memory_shrinks_the_pool(tmp_path, most, told):
    """A process that may take 200 MB more, a pool with a limit of a terabyte: fewer sequences.

    Forty sequences of 4,000 slots need 330 MB; one of 32,000 needs 260 MB, and fails alone.
    """
    folder = make_checkpoint(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder), str(most)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert told in done.stdout + done.stderr


def test_batches_of_the_original_come_from_the_plain_engine(tmp_path):
    """The shared engine has none, and says where they are."""
    with pytest.raises(UsageError, match="plain"):
        open_backend(str(tmp_path), image_root=tmp_path, batch_size=8)


def test_order_of_requests_changes_nothing(models, root):
    """Answers are the same for any order, to the last digit of the ids."""
    requests = questions(24, lambda n: n % PICTURES)
    expected = answers(SharedEngine(models[0], root), requests)
    for seed in range(3):
        shuffled = random.Random(seed).sample(requests, len(requests))
        assert_same(expected, answers(SharedEngine(models[0], root), shuffled))


@pytest.mark.parametrize("after", [1, 5])
def test_nothing_is_left_behind(models, root, after):
    """An engine that is not read to its end stops its threads, and can be asked again."""
    before = threading.active_count()
    requests = questions(200, lambda n: n % PICTURES)
    engine = SharedEngine(models[0], root, sequences=4)
    given = engine.answer(iter(requests))
    for _ in range(after):
        next(given)
    given.close()
    assert before == threading.active_count()
    assert_same(answers(PlainEngine(models[0], root), requests[:8]), answers(engine, requests[:8]))
    assert after + 8 == engine.usage.answers


@pytest.mark.parametrize("error", [Stop, KeyError])
def test_an_error_of_the_requests_comes_through(models, root, error):
    """As it is, a process's end among them; the engine can be asked again."""
    before = threading.active_count()
    requests = questions(200, lambda n: n % PICTURES)

    def failing():
        yield from requests[:150]
        raise error

    engine = SharedEngine(models[0], root, sequences=4)
    given = []
    with pytest.raises(error):
        given += engine.answer(failing())
    assert before == threading.active_count()
    assert_same(answers(PlainEngine(models[0], root), requests[:8]), answers(engine, requests[:8]))


def test_calls_may_overlap(models, root):
    """A call that was left open and ends late takes nothing from the next."""
    requests = questions(40, lambda n: n % PICTURES)
    engine = SharedEngine(models[0], root, sequences=2)
    left = engine.answer(requests)
    next(left)
    found = []
    for prediction in engine.answer(requests):
        found.append(prediction)
        if len(found) == 3:
            left.close()
    assert len(requests) == len(found)
    assert not any(prediction.error for prediction in found)


def test_sequences_and_memory_are_settings_of_the_back_end(tmp_path):
    """They reach the engine."""
    folder = make_checkpoint(tmp_path / "model")
    engine = open_backend(str(folder), image_root=tmp_path, sequences=3, memory=1 << 20)
    assert (3, 1 << 20) == (engine.sequences, engine.memory)
    assert GENERATION == engine.describe()["generation"]
