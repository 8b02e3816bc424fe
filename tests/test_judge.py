"""Answers are judged: what is asked, what it costs, and the figures that come out."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from judge_server import FaultyJudge
from judging import (
    KEY,
    MODEL,
    TASK,
    Replies,
    beside,
    dialogue,
    digests,
    judge,
    judge_few,
    lines,
    number_in,
    results,
    rows,
    summary,
    table,
)
from small import command

from eval.demo.judge import user_text
from eval.demo.stand_ins import draw_demo
from touchstone.prompt import OWN
from touchstone.score import Judged, Round, published_means
from touchstone.table import as_read_back, read_answers
from touchstone.tasks import dialogues

SHARED = Path(__file__).resolve().parents[2] / "shared" / "metrics"
OURS = "judged with a prompt that is not the benchmark's"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture(scope="module")
def cases(golden):
    return json.loads((golden / "metrics" / "touchstone_cases.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shared():
    """The benchmark's own prompt, and what was recorded of it: neither is ours to copy."""
    if not (SHARED / "touchstone_judge_prompt.json").is_file():
        pytest.skip("the published prompt is not in ../shared")
    return SHARED


@pytest.fixture
def server():
    with FaultyJudge() as started:
        yield started


# The figures


def of_ledger(told, order):
    """What the published script makes of the last replies in a ledger."""
    found = {(line["sample"], line["round"]): line["scores"] for line in told if "sample" in line}

    def judged(each):
        pair = (found[each.id, number] for number in (1, 2))
        (one, two) = (Round(0, 0, True) if s is None else Round(*s) for s in pair)
        return Judged(each.category, (one, Round(two.assessed, two.reference, two.failed)), each.id)

    return published_means(judged(each) for each in order)


def same_figures(told, means, by_category):
    """Whether a summary has the figures of the published script, which are x 100."""
    assert told["metrics"]["touchstone_score"] == pytest.approx(means.assessed / 100, abs=1e-12)
    assert told["judge"]["reference"] == pytest.approx(means.reference / 100, abs=1e-12)
    found = {name: part["touchstone_score"] for name, part in told["by"]["category"].items()}
    expected = {name: m.assessed / 100 for name, m in by_category.items() if m.assessed is not None}
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_whole_benchmark_once(server, tmp_path, monkeypatch):
    """Each request once; nothing is asked again, but what is new: an answer, or a ledger."""
    target = table(tmp_path / "answers.tsv", 908)
    run, ledger = tmp_path / "answers.judged", beside(target)
    done = judge(target, server)
    assert done.returncode == 0, done.stderr
    assert 2 * 908 + 16 == len(server.requests) == len(set(digests(server)))
    assert 1 < server.record.in_flight_max <= 48
    told = summary(run)
    assert (908, True, 0, 0) == (
        told["samples"],
        told["complete"],
        told["failed"],
        told["judge"]["failed"],
    )
    same_figures(told, *of_ledger(lines(ledger), read_answers(target)))
    shown = f"{100 * told['metrics']['touchstone_score']:.1f}"
    assert f"{shown}†" in done.stdout
    assert f"{shown}†" in command("report", run).stdout
    before, asked = results(run), len(lines(ledger))

    server.requests.clear()
    monkeypatch.delenv("OPENAI_API_KEY")  # there is nothing to ask
    again = judge(target, server)
    assert (0, 0, asked) == (again.returncode, len(server.requests), len(lines(ledger)))
    assert (before, done.stdout) == (results(run), again.stdout)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    changed = read_answers(target)
    changed[77] = replace(changed[77], response="Only this one is new.")
    other = table(tmp_path / "other.tsv", changed)
    assert judge(other, server, "--no-anchors").returncode == 0
    assert [77, 77] == [number_in(user_text(each.request)) for each in server.requests]
    pairs = zip(rows(run), rows(tmp_path / "other.judged"), strict=True)
    assert ["77"] == [one["id"] for one, other in pairs if one != other]

    server.requests.clear()
    few = table(tmp_path / "few.tsv", changed[:3])
    assert judge_few(few, server, "--ledger", tmp_path / "new.jsonl").returncode == 0
    assert 6 == len(server.requests)
    server.requests.clear()
    assert judge_few(few, server, "--out", tmp_path / "few").returncode == 0
    assert 0 == len(server.requests)


def test_the_recorded_pipeline(cases, tmp_path):
    """From a table's bytes to the figures of the published script, with our prompt."""
    told = cases["pipeline"]
    target = tmp_path / "mymodel.tsv"
    target.write_bytes(told["tsv"].encode())
    replies = {}
    for each in read_answers(target):
        pair = (each.reference, each.response)
        for one, two in (pair, pair[::-1]):
            text = OWN.messages(each.annotation, each.question, one, two)[1]["content"]
            replies[text] = told["replies_by_query"][len(replies)]
    pipeline(told, tmp_path, replies)
    assert OURS in summary(tmp_path / "mymodel.judged")["doubts"]
    assert "543.8†" in command("report", tmp_path / "mymodel.judged").stdout


def test_the_recorded_pipeline_with_the_published_prompt(shared, tmp_path):
    """The judge gets exactly what was recorded, and the figure is said to be of that prompt."""
    told = json.loads((shared / "touchstone_cases.json").read_text(encoding="utf-8"))["pipeline"]
    replies = dict(zip(told["queries"], told["replies_by_query"], strict=True))
    target = tmp_path / "mymodel.tsv"
    target.write_bytes(told["tsv"].encode())
    prompt = shared / "touchstone_judge_prompt.json"
    server = pipeline(told, tmp_path, replies, "--judge-prompt", prompt)
    api = json.loads(prompt.read_text(encoding="utf-8"))
    for asked in server.requests:
        request = dict(asked.request)
        assert {"role": "system", "content": api["system"]} == request["messages"][0]
        assert (0, ["\n"]) == (request["temperature"], request["stop"])
    run = tmp_path / "mymodel.judged"
    assert summary(run)["judge"]["prompt"]["published"]
    doubts = summary(run)["doubts"]
    assert OURS not in doubts
    assert f"judged by {MODEL}, not by gpt-4" in doubts


def pipeline(told, folder, replies, *more):
    """Judge the recorded table, each text with its recorded reply."""
    with Replies(lambda text, _: replies[text]) as server:
        done = judge_few(folder / "mymodel.tsv", server, *more)
    assert done.returncode == 3, done.stderr
    errors = sum(r[n][2] == "error" for r in told["records"] for n in ("round1", "round2"))
    assert 4 == errors
    assert 12 - errors + 5 * errors == len(server.requests)
    assert set(replies) == {user_text(asked.request) for asked in server.requests}
    found = summary(folder / "mymodel.judged")
    assert found["judge"]["failed"] == errors
    expected = told["expected"]
    assert found["metrics"]["touchstone_score"] == expected["overall"]["mymodel"] / 100
    assert found["judge"]["reference"] == expected["overall"]["gpt4-ha"] / 100
    assert {n: part["mymodel"] / 100 for n, part in expected["by_category"].items()} == {
        n: pytest.approx(part["touchstone_score"]) for n, part in found["by"]["category"].items()
    }
    return server


def test_every_recorded_reply_as_a_judges(cases, tmp_path):
    """The scores of the published script, or after as many calls as there a failure that is shown.

    `nan` is a score there, and takes all figures with it.
    """
    told = cases["reply_cases"]
    target = table(tmp_path / "answers.tsv", len(told))
    with Replies(lambda text, _: told[number_in(text)]["reply"]) as server:
        done = judge_few(target, server, "--as-published")
    assert done.returncode == 3
    calls = [number_in(user_text(asked.request)) for asked in server.requests]
    found = rows(tmp_path / "answers.judged")
    for number, case in enumerate(told):
        assert 2 * case["calls"] == calls.count(number), case
        for one in found[number]["rounds"]:
            expected = None if case["status"] == "error" else case["parsed"]
            expected = expected and [v if math.isfinite(v) else None for v in map(float, expected)]
            assert (case["reply"], expected) == (one["reply"], one["scores"])
            assert bool(one["fault"]) == (expected is None)
    failed = 2 * sum(case["status"] == "error" for case in told)
    assert failed == summary(tmp_path / "answers.judged")["judge"]["failed"]
    first = next(n for n, case in enumerate(told) if case["status"] == "error")
    assert f"failed: {TASK}/{first} round 1: " in done.stderr
    assert 5 == done.stderr.count("failed: ")
    assert f"{failed:,} judgements failed and are left out;" in done.stdout


def recorded_scores(records):
    """A judge that gives the recorded scores; for what the script counts as an error, none."""

    def reply(text, _):
        number = number_in(text)
        swapped = text.index(f"{number} red buses on a street.") > text.index(f"red buses {number}")
        one, two, status = records[number]["round2" if swapped else "round1"]
        return "no" if status == "error" else f"{one} {two}"

    return Replies(reply)


def recorded(cases, part, folder):
    """The records by number, and a table of as many dialogues."""
    records = {record["ques_id"]: record for record in cases[part]["records"]}
    assert list(range(len(records))) == list(records)
    rows = [dialogue(n, category=record["category"]) for n, record in records.items()]
    return records, table(folder / "answers.tsv", rows)


def test_the_recorded_figures(cases, tmp_path):
    """With --as-published the figures are the published script's, scores of 0 included."""
    records, target = recorded(cases, "aggregate", tmp_path)
    expected = cases["aggregate"]["expected"]
    with recorded_scores(records) as server:
        done = judge_few(target, server, "--as-published")
    assert done.returncode == 3, done.stderr
    found = summary(tmp_path / "answers.judged")
    by_category = {n: part["touchstone_score"] for n, part in found["by"]["category"].items()}
    assert 100 * found["metrics"]["touchstone_score"] == pytest.approx(expected["overall"]["m"])
    assert 100 * found["judge"]["reference"] == pytest.approx(expected["overall"]["gpt4-ha"])
    assert by_category == pytest.approx(
        {name: means["m"] / 100 for name, means in expected["by_category"].items()}
    )
    assert 100 * found["judge"]["published"] == pytest.approx(expected["overall"]["m"])


def test_a_judge_that_never_gives_scores(cases, tmp_path):
    """The script's figures of nothing but errors are none; here judging stops before."""
    records, target = recorded(cases, "all_errors", tmp_path)
    assert {"overall": {}, "by_category": {}} == cases["all_errors"]["expected"]
    none = Judged("a", (Round(0, 0, True), Round(0, 0, True)), "1")
    assert None is published_means([none])[0].assessed
    with recorded_scores(records) as server:
        done = judge_few(target, server)
        assert (3, 5) == (done.returncode, len(server.requests))
    assert not (tmp_path / "answers.judged" / TASK / "summary.json").exists()


def test_how_many_are_asked_at_a_time_changes_no_byte(server, tmp_path):
    target = table(tmp_path / "answers.tsv", 40)
    server.latency_s = 0.005
    for count in (1, 48):
        ledger = ("--ledger", tmp_path / f"{count}.jsonl")
        done = judge(
            *(target, server, "--allow-partial", "--out", tmp_path / f"run-{count}"),
            *("--concurrency", count, *ledger),
        )
        assert done.returncode == 0, done.stderr
        assert (server.record.in_flight_max == 1) == (count == 1)
    assert results(tmp_path / "run-1") == results(tmp_path / "run-48")


# A run, and the benchmark's data


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's data, and a run of its checkpoint on a few of TouchStone's questions."""
    folder = tmp_path_factory.mktemp("demo")
    draw_demo(folder / "data")
    asked = ("--data", folder / "data", "--out", folder / "run", "--limit", 6, "--device", "cpu")
    done = command("run", TASK, "--model", "demo", *asked, "--allow-partial")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_is_judged_in_place(demo, server):
    """The answers as the model gave them; scored again the figure stays; a changed answer has none.

    The ledger lies beside the run.
    """
    run = demo / "run"
    assert summary(run)["metrics"] == {}
    done = judge(run, server)
    assert done.returncode == 0, done.stderr
    assert 12 + 16 == len(server.requests)
    told = summary(run)
    given = {line["id"]: line["text"] for line in lines(run / TASK / "predictions.jsonl")}
    known = {each.id: each for each in dialogues(demo / "data", TASK)}
    shown = [replace(known[name], response=text.strip()) for name, text in given.items()]
    texts = [user_text(asked.request) for asked in server.requests]
    for each in as_read_back(shown):
        messages = OWN.messages(each.annotation, each.question, each.reference, each.response)
        assert 1 == texts.count(messages[1]["content"])
    same_figures(told, *of_ledger(lines(demo / "judge-ledger.jsonl"), shown))
    before = results(run)
    assert command("score", run).returncode == 0
    assert before == results(run)
    assert f"{100 * told['metrics']['touchstone_score']:.1f}†" in command("report", run).stdout


def test_answers_beside_the_data(demo, server, tmp_path):
    """Their pictures tell what belongs together; texts that are others are refused, by row."""
    known = [replace(each, response=f"a red {each.id}") for each in dialogues(demo / "data", TASK)]
    target = table(tmp_path / "answers.tsv", known)
    with_data = ("--data", demo / "data", "--out", tmp_path / "with")
    assert judge_few(target, server, *with_data).returncode == 0
    asked = len(server.requests)
    assert judge_few(target, server, "--out", tmp_path / "without").returncode == 0
    assert asked == len(server.requests), "the same texts"
    one, two = (summary(tmp_path / name)["judge"] for name in ("with", "without"))
    pictures = {each.images[0] for each in known}
    assert len(pictures) < len(known)
    assert (len(pictures), len(known)) == (one["images"], two["images"])
    assert one["interval"] != two["interval"]
    assert one["rounds"] == two["rounds"]

    for column, name in (("question", "question"), ("gpt4_ha_answer", "reference")):
        wrong = list(known)
        wrong[5] = replace(wrong[5], **{name: "Another?"})
        spoilt = table(tmp_path / f"{name}.tsv", wrong)
        done = judge_few(spoilt, server, "--data", demo / "data")
        assert done.returncode == 2
        row = f"row with index {wrong[5].id}, column '{column}': "
        assert row in done.stderr
        assert "'Another?' found" in done.stderr
    unknown = table(tmp_path / "unknown.tsv", [*known, replace(known[0], id="none such")])
    done = judge_few(unknown, server, "--data", demo / "data")
    assert (2, True) == (done.returncode, "1 rows are not of these data (none such)" in done.stderr)
    assert asked == len(server.requests)


# What is kept


def test_what_a_run_keeps(server, tmp_path):
    """Who judged, by which prompt and parameters, and what was said of each answer."""
    target = table(tmp_path / "answers.tsv", 3)
    assert judge(target, server, "--allow-partial").returncode == 0
    run = tmp_path / "answers.judged"
    told, kept = summary(run), json.loads((run / TASK / "server.json").read_text())
    about = told["judge"]
    assert about == kept["judge"]
    assert (MODEL, ["demo-rules-1"], ["fp_demo_1"], "127.0.0.1") == tuple(
        about[name] for name in ("model", "reported", "fingerprints", "server")
    )
    assert {"temperature": 0, "stop": ["\n"], "max_tokens": 64} == about["parameters"]
    assert {"digest": OWN.digest, "published": False} == about["prompt"]
    assert (6, 0) == (about["judgements"], about["failed"])
    assert "demo-rules-1 at 127.0.0.1" == told["scored_by"] == kept["server"]
    assert (3, 908, False) == (told["samples"], told["size"], told["complete"])
    assert any("908 expected, 3 found" in fault for fault in told["faults"])
    ledger = {line["judged"]: line for line in lines(beside(target)) if "judged" in line}
    for row, each in zip(rows(run), read_answers(target), strict=True):
        assert each.id == row["id"]
        for number, one in enumerate(row["rounds"], 1):
            line = ledger[one["key"]]
            assert (each.id, number) == (line["sample"], line["round"])
            assert (line["reply"], line["scores"]) == (one["reply"], one["scores"])
            assert [float(part) for part in one["reply"].split()] == one["scores"]
            assert ("demo-rules-1", "fp_demo_1", "") == (
                *(one["reported"], one["fingerprint"], one["fault"]),
            )
    means = {row["id"]: mean_of(row["rounds"]) for row in rows(run)}
    scored = {row["id"]: row["touchstone_score"] for row in lines(run / TASK / "scores.jsonl")}
    assert means == scored


def mean_of(rounds):
    """Of the assessed answer, which stands second in the first round and first in the second."""
    return (rounds[0]["scores"][1] + rounds[1]["scores"][0]) / 2


# Whether the judge is still the same


def test_a_judge_that_drifts_is_shown(server, tmp_path):
    """The anchors are asked anew on each occasion, and compared with the first in the ledger."""
    first, second, third = (
        table(tmp_path / f"{name}.tsv", [dialogue(n, name) for n in range(2)]) for name in "abc"
    )
    done = judge(first, server, "--allow-partial")
    assert "recorded now: later runs are compared with them" in done.stdout
    done = judge(second, server, "--allow-partial")
    assert "drift +0.0, 0 differ" in done.stdout
    server.drift = -0.5
    done = judge(third, server, "--allow-partial")
    assert "drift -50.0, 16 differ" in done.stdout
    told = summary(tmp_path / "c.judged")["judge"]["anchors"]
    assert (16, 16) == (told["judgements"], told["changed"])
    assert told["mean"] == pytest.approx(told["recorded"] - 0.5)
    assert 3 * (4 + 16) == len(server.requests)
    done = judge_few(table(tmp_path / "d.tsv", 2), server)
    assert "whether the judge has drifted is not known" in done.stdout
    assert summary(tmp_path / "d.judged")["judge"]["anchors"] is None


def test_a_file_of_answers_claims_no_decoding(server, tmp_path):
    """How somebody else's answers were asked for is not known, and the signature says so."""
    target = table(tmp_path / "answers.tsv", 2)
    assert judge_few(target, server).returncode == 0
    told = summary(target.with_suffix(".judged"))["signature"]
    assert "protocol=? " in told
    assert "decode=? " in told
