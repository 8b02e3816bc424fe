"""Sampling: what is drawn depends on the question's seed and its scores, and on nothing else."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from small import make_checkpoint

from eval.api import (
    Generate,
    Nucleus,
    Rank,
    Request,
)
from eval.engine.plain import PlainEngine
from eval.engine.shared import SharedEngine
from eval.runtime import QwenVL
from eval.runtime.generation import LIKELY, Sampling, sample_tokens

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


@settings(max_examples=200)
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
    assert [expected] == sample_tokens(rows, how, [drawn]).tolist()
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
    assert expected == set(sample_tokens(rows, Sampling(top_p), draws).tolist())


@settings(max_examples=50)
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
    together = sample_tokens(scores, Sampling(top_p), [generator(seed) for seed in seeds]).tolist()
    alone = [
        int(sample_tokens(scores[n : n + 1], Sampling(top_p), [generator(seed)])[0])
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
    ("sequences", "memory"), [(1, 1 << 30), (3, 1), (3, 1 << 21), (64, 1 << 21), (64, 1 << 30)]
)
def test_engines_draw_the_same(model, root, expected, sequences, memory):
    """In float32 the shared engine gives the plain one's ids for any pool, memory and order."""
    for order in range(2):
        asked = random.Random(order).sample(mixed(), len(mixed()))
        engine = SharedEngine(
            model, root, sequences=sequences, memory=memory, prefill_tokens=sequences * 300
        )
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
