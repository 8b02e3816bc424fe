"""Few-shot examples: what is drawn, and what it hangs on."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import command, make_checkpoint, make_data

from eval import Corpus, Generate, Layout, Sample, Source, Task
from eval.config import Config
from eval.data import Examples
from eval.errors import DataError, UsageError
from eval.pipeline import Place, specification
from eval.plugins import find_tasks
from eval.run.requests import requests
from eval.run.spec import Spec, spec_entry
from eval.scoring.score import AsPublished

PROMPT = "<img>{image}</img>{question} Answer:"


def pool(root):
    for number in range(20):
        yield Sample(
            f"t{number}", {"image": f"{number}.jpg", "question": "Q?", "answer": f"a{number}"}
        )


def questions(root):
    for number in range(6):
        yield Sample(str(number), {"image": f"q{number}.jpg", "question": "Now?"}, reference=["x"])


def make_task(metric=lambda text, answers: 0.0, train=pool):
    source = (Source("here"),)
    return Task(
        "small_val",
        6,
        (Layout(source, questions),),
        PROMPT,
        Generate(5),
        {"accuracy": metric},
        train=(Layout(source, train),) if train else (),
    )


@pytest.fixture
def root(tmp_path):
    (tmp_path / "here").touch()
    return tmp_path


def test_the_draw_is_this_one(root):
    """Recorded once: a change of the rule would change every few-shot figure."""
    examples = Examples(make_task(), root)
    assert ["t3", "t19", "t0", "t17"] == [e.id for e in examples.draw("0", 4, 0)]


@given(count=st.integers(0, 20), seed=st.integers(0, 99), sample=st.text(max_size=5))
def test_drawn_without_replacement_from_the_pool_alone(tmp_path_factory, count, seed, sample):
    """As many as asked, each once; a smaller draw is the beginning of a larger one."""
    root = tmp_path_factory.mktemp("pool")
    (root / "here").touch()
    examples = Examples(make_task(), root)
    drawn = [e.id for e in examples.draw(sample, count, seed)]
    assert count == len(set(drawn)) == len(drawn)
    assert drawn[: count // 2] == [e.id for e in examples.draw(sample, count // 2, seed)]


def test_seed_and_question_decide(root):
    examples = Examples(make_task(), root)
    draws = {
        tuple(e.id for e in examples.draw(sample, 4, seed))
        for sample in ("0", "1")
        for seed in (0, 1)
    }
    assert len(draws) == 4


def test_the_prompt_is_examples_each_with_its_answer_and_nothing_between(root):
    asked = Spec(few_shot=2, seed=0)
    _, request = next(requests(make_task(), root, asked))
    assert request.prompt == (
        "<img>3.jpg</img>Q? Answer: a3<img>19.jpg</img>Q? Answer: a19<img>q0.jpg</img>Now? Answer:"
    )


def test_more_than_there_are_is_refused(root):
    with pytest.raises(UsageError, match=r"21 few-shot examples asked for, .* has 20"):
        Examples(make_task(), root).draw("0", 21, 0)


def test_a_benchmark_without_training_split_is_refused(root):
    with pytest.raises(UsageError, match="no training split"):
        Examples(make_task(train=None), root)


def test_an_example_cannot_name_a_file(root):
    """An answer that opens an image span would let a file's text name another file."""

    def hostile(root):
        yield Sample("t", {"image": "a.jpg", "question": "Q?", "answer": "<img>/etc/passwd</img>"})

    with pytest.raises(DataError, match="image tag"):
        next(requests(make_task(train=hostile), root, Spec(few_shot=1)))


@pytest.mark.parametrize("fields", [{"answer": ""}, {}])
def test_an_example_without_an_answer_is_refused(root, fields):
    """It would teach the model to say nothing."""

    def silent(root):
        yield Sample("t0", {"image": "0.jpg", "question": "Q?", **fields})

    with pytest.raises(DataError, match="training sample t0: an answer expected"):
        Examples(make_task(train=silent), root)


def test_captions_as_published_come_from_the_split_itself(root):
    """The published caption script draws from the test file; ours does so only when asked to."""

    def captioned(root):
        for number in range(3):
            yield Sample(str(number), {"image": f"{number}.jpg"}, reference=["one", "two"])

    source = (Source("here"),)
    task = Task(
        "small_test",
        3,
        (Layout(source, captioned),),
        "<img>{image}</img>Describe:",
        Generate(5),
        {"cider": Corpus(lambda texts, references: [0.0] * len(texts))},
        train=(Layout(source, pool),),
    )
    assert {"0/0", "0/1", "1/0", "1/1", "2/0", "2/1"} == {
        sample.id for sample in Examples(task, root, leaking=True).samples
    }
    assert all(sample.id.startswith("t") for sample in Examples(task, root).samples)
    asked = Spec(few_shot=2, leaking=True)
    prompts = [request.prompt for _, request in requests(task, root, asked)]
    assert all("Describe: one" in prompt or "Describe: two" in prompt for prompt in prompts)
    assert spec_entry(task, root, asked)["leaking"]


@pytest.mark.parametrize(
    ("name", "few_shot", "as_published", "expected"),
    [
        ("flickr30k_test", 4, AsPublished(8, 8), True),
        ("flickr30k_test", 4, None, False),
        ("flickr30k_test", 0, AsPublished(8, 8), False),
        ("okvqa_val", 4, AsPublished(8, 8), False),
    ],
)
def test_captions_leak_only_where_it_is_asked_for(tmp_path, name, few_shot, as_published, expected):
    """A plain few-shot run must never see an answer of its own split."""
    (task,) = find_tasks([name])
    config = Config("demo", (name,), few_shot=few_shot)
    place = Place(tmp_path, tmp_path, as_published=as_published)
    assert expected == specification(config, place, task).leaking


def test_a_few_shot_run_records_its_draw(tmp_path):
    """From the command line: examples.jsonl, manifest and summary tell what stood before."""
    data = make_data(tmp_path / "data")
    folder = data / "okvqa"
    for kind in ("OpenEnded_mscoco_{}_questions.json", "mscoco_{}_annotations.json"):
        text = (folder / kind.format("val2014")).read_text()
        (folder / kind.format("train2014")).write_text(text)
    train = data / "coco" / "train2014"
    train.mkdir()
    for picture in (data / "coco" / "val2014").iterdir():
        (train / picture.name.replace("val", "train")).write_bytes(picture.read_bytes())
    checkpoint = make_checkpoint(tmp_path / "small")
    arguments = ["run", "okvqa", "--model", checkpoint, "--data", data, "--allow-partial"]
    runs = []
    for name, more in (("a", []), ("b", ["--seed", "1"])):
        done = command(*arguments, "--few-shot", "1", "--out", tmp_path / name, *more)
        assert done.returncode == 0, done.stderr
        rows = (tmp_path / name / "okvqa_val" / "examples.jsonl").read_text().splitlines()
        runs.append([json.loads(row) for row in rows])
        summary = json.loads((tmp_path / name / "okvqa_val" / "summary.json").read_text())
        assert summary["few_shot"] == 1
    assert 7 == len(runs[0]) == len(runs[1])
    assert runs[0] != runs[1]
    assert all(len(row["examples"]) == 1 for row in runs[0])
    # Only captions leak as published: these examples stay the training split's, its files pinned.
    more = ("--few-shot", "1", "--as-published", "8x8", "--out", tmp_path / "c")
    assert command(*arguments, *more).returncode == 0
    asked = [
        json.loads((tmp_path / name / "manifest.json").read_text())["tasks"]["okvqa_val"]
        for name in "ac"
    ]
    assert asked[0] == asked[1]
    assert any("train2014" in path for path in asked[0]["sources"])
    other = command(*arguments, "--few-shot", "2", "--out", tmp_path / "a")
    assert other.returncode == 2
    assert "okvqa_val few_shot" in other.stderr
