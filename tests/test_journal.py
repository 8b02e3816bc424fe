"""Journals: whatever the order, the duplicates and the torn ends, the same bytes come of them."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import make_data

from eval.api import Prediction
from eval.errors import RunError
from eval.plugins import find_tasks
from eval.run.folder import RunFolder
from eval.run.journal import AnswerIndex, Journal, header, line, model_identity, parse, read
from eval.run.requests import requests
from eval.run.spec import Spec, spec_entry
from eval.storage.reading import BOM

QUESTIONS = 7
MODEL = model_identity(
    {"digest": "a" * 64, "device": "cuda:1", "dtype": "float32", "generation": 1}
)
FIRST = header(MODEL)
TASK = "okvqa_val"


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A run's folder, its task and data, and each question with its identity."""
    root = tmp_path_factory.mktemp("run")
    data = make_data(root / "data", QUESTIONS)
    (task,) = find_tasks([TASK])
    how = Spec()
    entries = {TASK: spec_entry(task, data, how)}
    folder = RunFolder.start(
        root / "run", {"model": {**MODEL, "device": "cuda:0"}, "tasks": entries}
    )
    folder.answers(task.name).open(task, data, how)
    wanted = list(folder.answers(task.name).pending(task, data, how, folder.digests()))
    assert [f"{TASK}/{10 * n + 5}" for n in range(QUESTIONS)] == [w.request.id for w in wanted]
    assert [r.id for _, r in requests(task, data, how)] == [w.request.id for w in wanted]
    return folder, task, data, how, wanted


def answer(wanted, *, losses=()):
    name = wanted.request.id.partition("/")[2]
    return line(Prediction(name, f" {name}", (int(name), 1), losses), wanted.of)


def failure(wanted):
    return line(Prediction(wanted.request.id.partition("/")[2], "", error="lost"), wanted.of)


def clear(folder):
    for file in (folder.path / TASK).iterdir():
        file.unlink()


def sealed(asked, files):
    """The bytes of predictions.jsonl and losses.jsonl from journals of these contents."""
    folder, task, data, how, _ = asked
    clear(folder)
    for name, content in files.items():
        (folder.path / TASK / f"journal-{name}.jsonl").write_bytes(FIRST + content)
    assert 0 == folder.answers(task.name).finalize(task, data, how, folder.digests())
    told = [folder.path / TASK / name for name in ("predictions.jsonl", "losses.jsonl")]
    return [file.read_bytes() if file.exists() else None for file in told]


LINES = st.lists(
    st.tuples(st.integers(0, QUESTIONS - 1), st.sampled_from(["answer", "failure", "outdated"])),
    max_size=20,
)
NAMES = st.sampled_from(["0", "1", "2", "10", "lost", "before"])


@settings(max_examples=150)
@given(
    order=st.permutations(range(QUESTIONS)),
    owners=st.lists(NAMES, min_size=QUESTIONS, max_size=QUESTIONS),
    more=st.lists(st.tuples(NAMES, LINES), max_size=4),
    torn=st.dictionaries(NAMES, st.integers(1, 30), max_size=3),
)
def test_any_journals_of_the_same_answers_merge_into_the_same_bytes(
    asked, order, owners, more, torn
):
    """Each question answered once at least: by whom, when, how often, and what else failed before,
    or was answered to another question of the sample, or torn at the end, leaves no trace."""
    wanted = asked[-1]
    files: dict[str, bytes] = {}
    for name, rows in more:
        for index, kind in rows:
            each = wanted[index]
            content = {
                "answer": answer(each),
                "failure": failure(each),
                "outdated": line(Prediction(f"{10 * index + 5}", "other"), "0" * 16),
            }[kind]
            files[name] = files.get(name, b"") + content
    for index, name in zip(order, owners, strict=True):
        files[name] = files.get(name, b"") + answer(wanted[index])
    for name, length in torn.items():
        whole = answer(wanted[0])
        files[name] = files.get(name, b"") + whole[: min(length, len(whole) - 1)]
    expected = sealed(asked, {"0": b"".join(map(answer, wanted))})
    assert expected == sealed(asked, files)
    assert b"".join(map(answer, wanted)) == expected[0]


@settings(max_examples=50)
@given(
    st.sets(st.integers(0, QUESTIONS - 1)), st.sets(st.integers(0, QUESTIONS - 1)), st.booleans()
)
def test_what_is_lacking_is_what_has_neither_answer_nor_failure(asked, answered, failed, first):
    """In dataset order; a task of which something is lacking is not sealed."""
    folder, task, data, how, wanted = asked
    clear(folder)
    rows = [b"".join(failure(wanted[n]) for n in failed)]
    rows.insert(first, b"".join(answer(wanted[n]) for n in answered))
    (folder.path / TASK / "journal-3.jsonl").write_bytes(FIRST + b"".join(rows))
    lacking = list(folder.answers(task.name).pending(task, data, how, folder.digests()))
    assert [w for n, w in enumerate(wanted) if n not in answered | failed] == lacking
    assert len(lacking) == folder.answers(task.name).finalize(task, data, how, folder.digests())
    assert folder.answers(TASK).complete == (not lacking)
    assert failed - answered == {int(name) // 10 for name in folder.answers(TASK).failed()}


def test_batches_are_asked_again_as_a_whole(asked):
    """Where one of a batch is lacking all of it is, under the batch's name."""
    folder, task, data, how, wanted = asked
    clear(folder)
    done = b"".join(answer(wanted[n]) for n in (0, 1, 2, 4, 6))
    (folder.path / TASK / "journal-0.jsonl").write_bytes(FIRST + done)
    lacking = list(folder.answers(task.name).pending(task, data, how, folder.digests(), 3))
    assert [w.request.id for w in wanted[3:6]] == [w.request.id for w in lacking]
    assert {f"{TASK} 1"} == {w.group for w in lacking}


def test_losses_lie_beside_the_predictions(asked):
    """Which are the same to the byte whatever was computed together; both are read as one."""
    folder, wanted = asked[0], asked[-1]
    losses = {2: (0.5, 1.25), 5: (3.0, float(2**-30))}
    lines = [answer(w, losses=losses.get(n, ())) for n, w in enumerate(wanted)]
    predictions, beside = sealed(asked, {"0": b"".join(lines)})
    assert b"".join(map(answer, wanted)) == predictions
    assert ["25", "55"] == [json.loads(row)["id"] for row in beside.splitlines()]
    told = {p.id: p.losses for p in folder.answers(TASK).predictions() if p.losses}
    assert {"25": losses[2], "55": losses[5]} == told


def test_lines_keep_all_that_a_prediction_has():
    """What was written is what is read, to the character."""
    prediction = Prediction("a b/ü", ' "\u2028\n', (1, 2), (0.1, 2.0), "")
    entry = parse(line(prediction, "0123456789abcdef"), "here")
    assert (prediction, "0123456789abcdef") == (entry.prediction, entry.of)
    failed = Prediction("1", "", error="why")
    assert failed == parse(line(failed, ""), "here").prediction


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"7", b'{"id": "1"}', b"\xff", b'{"id": '])
def test_a_line_that_is_no_prediction_is_named(tmp_path, content):
    """With its file and number, also in the middle of a journal."""
    file = tmp_path / "journal-0.jsonl"
    file.write_bytes(line(Prediction("1", "x"), "") + content + b"\n")
    with pytest.raises(RunError, match=r"journal-0\.jsonl, line 2: "):
        list(read(file, torn=True))


@settings(max_examples=60)
@given(lines=st.integers(0, 5), torn=st.integers(0, 40), long=st.booleans())
def test_a_journal_goes_on_after_its_last_whole_line(tmp_path_factory, lines, torn, long):
    """What a crash has left of a line is gone, however long, before the next is written."""
    file = tmp_path_factory.mktemp("journal") / "journal-0.jsonl"
    rows = [line(Prediction(str(n), "x" * (90_000 if long else 3)), "") for n in range(lines + 1)]
    rows.insert(0, FIRST)
    file.write_bytes(b"".join(rows[:lines]) + rows[lines][: torn * (3000 if long else 1)][:-1])
    journal = Journal(file, MODEL)
    journal.write(Prediction("last", "y"), "of")
    journal.close()
    expected = [*rows[: max(lines, 1)], line(Prediction("last", "y"), "of")]
    assert b"".join(expected) == file.read_bytes()


def test_a_byte_order_mark_before_the_first_line(tmp_path):
    """An editor leaves one; the journal is read and written as without it."""
    file = tmp_path / "journal-0.jsonl"
    file.write_bytes(BOM + FIRST + line(Prediction("1", "y"), "of"))
    Journal(file, MODEL).close()
    assert ["1"] == [e.prediction.id for e in read(file, torn=True, model=MODEL, named=True)]


FULL = """
import resource, sys
from pathlib import Path
from eval.api import Prediction
from eval.errors import RunError
from eval.run.journal import Journal
journal = Journal(Path(sys.argv[1]), {})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for number in range(100):
    try:
        journal.write(Prediction(str(number), "x" * 70), "of")
    except RunError as error:
        sys.exit(f"{number} {error}")
"""


def test_a_full_disk_leaves_whole_lines(tmp_path):
    """The line that did not fit is taken back; the error names the file and what to do."""
    file = tmp_path / "journal-0.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL, file], capture_output=True, text=True)
    number, _, message = done.stderr.partition(" ")
    assert message.startswith(f"{file}: cannot be written: File too large. Every answer before")
    rows = [int(entry.prediction.id) for entry in read(file, torn=False)]
    assert list(range(int(number))) == rows
    assert rows


def test_a_journal_that_cannot_be_made_is_named(tmp_path):
    """Its folder is missing, or something else lies there."""
    with pytest.raises(RunError, match=r"none/journal-0\.jsonl: cannot be written: No such file"):
        Journal(tmp_path / "none" / "journal-0.jsonl", MODEL)
    (tmp_path / "journal-1.jsonl").mkdir()
    with pytest.raises(RunError, match="Is a directory"):
        Journal(tmp_path / "journal-1.jsonl", MODEL)


def test_the_later_of_two_answers_counts(tmp_path):
    """And any answer rather than a failure, which holds for whatever the sample is asked."""
    files = [tmp_path / name for name in ("a", "b")]
    files[0].write_bytes(line(Prediction("1", "one"), "x") + line(Prediction("2", "two"), "x"))
    files[1].write_bytes(
        line(Prediction("1", "later"), "x")
        + line(Prediction("2", "", error="lost"), "x")
        + line(Prediction("3", "", error="lost"), "y")
    )
    with AnswerIndex(files) as found:
        texts = [found.entry(found.place(n, "x")).prediction for n in ("1", "2", "3")]
    assert ["later", "two", ""] == [prediction.text for prediction in texts]
    assert "lost" == texts[2].error
    assert found.place("1", "y") is None
