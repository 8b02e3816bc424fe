"""Two runs in, a verdict out: four of them, each by its exit code, and all that is said beside."""

import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gated import (
    CARD,
    DECODE,
    ENTRY,
    MAIN,
    by_task,
    compare,
    draw,
    gate,
    lowered,
    make_run,
    rows_of,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from small import answer_all, make_data

from eval.api import Prediction
from eval.data.declare import Corpus
from eval.plugins import find_tasks
from eval.report.gate import compare_runs
from eval.report.scores import load_run
from eval.run.folder import RunFolder
from eval.run.spec import Spec, spec_entry
from eval.scoring.score import score_run

BENCH = Path(__file__).parent / "bench" / "gate_power.py"
HOSTILE = "<script>|**x**|\n\x1b[2J[red]`@you` $x$ \\| [a](http://b.c) www.d.e \u202eevil\u2069"
unhurried = settings(max_examples=15)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """2,000 questions on 1,000 images."""
    return make_run(tmp_path_factory.mktemp("gate") / "base", {"okvqa_val": rows_of(draw(2000))})


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """60 questions on 30 images."""
    return make_run(tmp_path_factory.mktemp("few") / "base", {"okvqa_val": rows_of(draw(60))})


def candidate_of(tmp_path, change=lambda rows: rows, task="okvqa_val", **more):
    return make_run(tmp_path / "candidate", {task: change(rows_of(draw(2000)))}, **more)


# The four outcomes


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda rows: rows, "pass"),
        (lambda rows: lowered(rows, 100), "regressed"),
        (lambda rows: [(i, image, 1.0 - v if int(i) % 10 == 0 else v) for i, image, v in rows], ""),
        (lambda rows: rows[1:], "invalid"),
    ],
    ids=["pass", "regressed", "inconclusive", "invalid"],
)
def test_each_verdict_has_an_exit_code_of_its_own(base, tmp_path, change, verdict):
    """Only with --gate; without it the comparison is a report, and has succeeded."""
    candidate = candidate_of(tmp_path, change)
    result, text = gate(base, candidate)
    assert (verdict or "inconclusive") == result["verdict"]
    assert f"\n{result['verdict']}: " in text
    assert compare(base, candidate).returncode == 0


def test_a_copy_of_a_run_passes(base, tmp_path):
    """Identical answers are no news, whatever the margin and however few they are."""
    shutil.copytree(base, tmp_path / "copy")
    for margin in ("0", "0.5", "100"):
        result, _ = gate(base, tmp_path / "copy", "--margin", margin)
        assert ("pass", []) == (result["verdict"], result["flips"])
        (benchmark,) = result["benchmarks"]
        assert 0.0 == benchmark["difference"] == benchmark["low"] + benchmark["high"]
        assert 0.1 < benchmark["high"] < 0.3  # points: of 1,000 images hardly 2 could have changed
    single = {"okvqa_val": rows_of([0.25])}
    result, _ = gate(make_run(tmp_path / "a", single), make_run(tmp_path / "b", single))
    assert "pass" == result["verdict"]


def test_a_drop_within_the_margin_passes_though_it_is_no_chance(base, tmp_path):
    """Five of 2,000 fell and none rose: a quarter of a point, which somebody agreed to lose."""
    result, _ = gate(base, candidate_of(tmp_path, lambda rows: lowered(rows, 5)))
    (benchmark,) = result["benchmarks"]
    assert ("pass", -0.25) == (benchmark["verdict"], pytest.approx(benchmark["difference"]))
    assert benchmark["p_worse"] < 0.05
    assert benchmark["p_within"] < 0.05


def test_a_clear_drop_is_told_with_its_figures(base, tmp_path):
    """100 of 2,000 questions on 1,000 images fell, and 20 rose."""
    rows = lowered(rows_of(draw(2000)), 100)
    wrong = [n for n, (_, _, value) in enumerate(rows) if not value and n > 1000][:20]
    rows = [(i, image, 1.0 if n in wrong else v) for n, (i, image, v) in enumerate(rows)]
    result, text = gate(base, candidate_of(tmp_path, lambda _: rows))
    (benchmark,) = result["benchmarks"]
    assert (2000, 1000, 20, 100) == tuple(
        benchmark[name] for name in ("samples", "images", "better", "worse")
    )
    difference = benchmark["difference"]
    assert pytest.approx(-4.0) == difference == benchmark["candidate"] - benchmark["base"]
    assert benchmark["low"] < -4.0 < benchmark["high"] < 0
    assert "regressed: at least one benchmark is below the base" in text
    assert "okvqa_val: 100 samples worse, 20 better; the worst: 2, 3, " in text


def test_the_smallest_detectable_drop_is_named(tmp_path):
    """20 questions of 20 images, two of which fell and one rose."""
    before = [1.0] * 10 + [0.0] * 10
    after = [0.0] * 2 + before[2:19] + [1.0]
    runs = [
        make_run(tmp_path / name, {"okvqa_val": rows_of(values, 1)})
        for name, values in (("a", before), ("b", after))
    ]
    result, text = gate(*runs)
    (benchmark,) = result["benchmarks"]
    assert "inconclusive" == result["verdict"]
    # differences -5 +- 100 sqrt((2 * .95^2 + 1.05^2 + 17 * .05^2) / 20 / 19) are as uncertain as
    # those of `size` coins; t(19): 1.7291 and 1.3277
    size = (1 - 0.05**2) / ((2 * 0.95**2 + 1.05**2 + 17 * 0.05**2) / 20 / 19)
    expected = 100 * ((1.729133 + 1.327728) / size**0.5 + 1 / size)
    assert pytest.approx(expected, rel=1e-5) == benchmark["smallest"]
    shown = f"okvqa_val: inconclusive: smallest detectable drop: {benchmark['smallest']:.2f} points"
    assert shown in text


@pytest.mark.parametrize("images", [1, 2, 4])
def test_so_few_images_show_nothing_however_they_fell(tmp_path, images):
    """Where all fell alike there is no spread, and Student's t was certain of two pictures."""
    runs = [
        make_run(tmp_path / name, {"okvqa_val": rows_of([value] * images, 1)})
        for name, value in (("a", 1.0), ("b", 0.0))
    ]
    result, text = gate(*runs)
    assert ("inconclusive", None) == (result["verdict"], result["benchmarks"][0]["smallest"])
    assert f"inconclusive: {images} images are too few to show any drop" in text


def test_questions_about_one_image_count_once(tmp_path):
    """40 of 400 fell: on 40 images of 400 that is shown, on one image of ten it is not."""
    spread = [0.0 if n % 10 == 0 else 1.0 for n in range(400)]
    gathered = [0.0] * 40 + [1.0] * 360
    verdicts = []
    for name, after, questions in (("spread", spread, 1), ("gathered", gathered, 40)):
        runs = [
            make_run(tmp_path / f"{name}-{which}", {"okvqa_val": rows_of(values, questions)})
            for which, values in (("a", [1.0] * 400), ("b", after))
        ]
        verdicts.append(gate(*runs)[0]["verdict"])
    assert ["regressed", "inconclusive"] == verdicts


def test_many_benchmarks_are_corrected_for(tmp_path):
    """A drop that one benchmark alone shows is chance where twenty were looked at."""
    before, after = [1.0] * 60, [0.0] * 4 + [1.0] * 56
    noise = [float(n % 2) for n in range(60)], [float(n % 2) if n > 9 else 0.5 for n in range(60)]
    tasks = {"okvqa_val": (before, after), **dict.fromkeys(list(MAIN)[5:25], noise)}
    for count, verdict in ((1, "regressed"), (20, "inconclusive")):
        runs = [
            make_run(
                tmp_path / f"{count}-{side}",
                {name: rows_of(values[side], 1) for name, values in list(tasks.items())[:count]},
            )
            for side in (0, 1)
        ]
        benchmark = by_task(gate(*runs)[0])["okvqa_val"]
        assert verdict == benchmark["verdict"]


# What cannot be compared


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"sources": {**ENTRY["sources"], "okvqa/questions.json": "3" * 64}}, "data: okvqa/q"),
        ({"prompt": "<img>{image}</img>{question} Reply:"}, "prompts: <img>{image}</img>{quest"),
        ({"protocol": "chatml"}, "protocols: published and chatml"),
        ({"decode": {**DECODE, "max_new_tokens": 20}}, "decoding: max_new_tokens"),
        (
            {"decode": {**DECODE, "greedy": False, "top_p": 0.3, "seed": 1}},
            "decoding: greedy, seed",
        ),
        ({"limit": 2000}, "limits: none and 2000"),
        ({"few_shot": 4, "seed": 0, "leaking": False}, "few-shot examples: none and 4"),
        ({"size": 5047}, "official sizes: 5046 and 5047"),
        ({"faults": ["images: 1 missing"], "left_out": ["7"]}, "samples left out: none and ['7']"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_asked_otherwise_is_named(few, tmp_path, entry, said):
    """Two figures of other questions differ for reasons that are no checkpoint's."""
    candidate = make_run(
        tmp_path / "candidate",
        {"okvqa_val": rows_of(draw(60))},
        entries={"okvqa_val": entry},
    )
    junit, markdown = tmp_path / "gate.xml", tmp_path / "gate.md"
    result, text = gate(few, candidate, "--junit", junit, "--markdown", markdown)
    assert "invalid" == result["verdict"]
    assert f"other {said}" in result["benchmarks"][0]["reason"]
    assert f"okvqa_val: invalid: other {said}" in text
    assert "the runs cannot be compared" in text
    assert f"other {said}" in ElementTree.parse(junit).find(".//error").get("message")
    assert f"invalid: other {said}" in texts_of(markdown.read_text("utf-8"))


@pytest.mark.parametrize(("key", "value"), [("seed", 1), ("few_shot", 2), ("leaking", True)])
def test_other_few_shot_examples_are_named(tmp_path, key, value):
    """As many examples, drawn otherwise, are other questions."""
    shots = {"few_shot": 4, "seed": 0, "leaking": False}
    runs = [
        make_run(tmp_path / name, {"okvqa_val": rows_of(draw(9))}, entries={"okvqa_val": entry})
        for name, entry in (("a", shots), ("b", {**shots, key: value}))
    ]
    result, _ = gate(*runs)
    what = "seeds" if key == "seed" else "few-shot examples"
    assert ("invalid", f"other {what}: {shots[key]} and {value}") == (
        result["verdict"],
        result["benchmarks"][0]["reason"],
    )


def test_samples_without_an_answer_are_named(base, tmp_path):
    """A checkpoint that crashes on what it cannot answer must not look better for it."""
    result, _ = gate(base, candidate_of(tmp_path, failed=("3", "5")))
    assert ("invalid", "candidate: 2 samples have no answer") == (
        result["verdict"],
        result["benchmarks"][0]["reason"],
    )


def test_a_benchmark_without_any_answer_is_not_taken_for_a_server_s(tmp_path):
    """Its summary has no figure either; left out, the candidate passed."""
    lost, kept = rows_of(draw(40)), [(f"g{i}", image, v) for i, image, v in rows_of(draw(40))]
    tasks = {"okvqa_val": lost, "gqa_testdev": kept}
    before = make_run(tmp_path / "a", tasks)
    after = make_run(tmp_path / "b", tasks, failed=[sample for sample, _, _ in lost])
    again = make_run(tmp_path / "c", tasks, failed=[sample for sample, _, _ in lost])
    for runs in ((before, after), (after, before), (after, again)):
        result, _ = gate(*runs)
        assert "invalid" == result["verdict"]
        assert "b: 40 samples have no answer" == by_task(result)["okvqa_val"]["reason"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [(f"x{i}", image, v) for i, image, v in rows], "other samples: '0' and 'x0'"),
        (lambda rows: rows[:-1], "other samples: one run has 1,999, and the other has more"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], "other samples: '0' and '1'"),
    ],
    ids=["ids", "fewer", "order"],
)
def test_other_samples_are_named(base, tmp_path, change, said):
    """Values pair up by sample, or not at all; nothing is left out on either side."""
    result, _ = gate(base, candidate_of(tmp_path, change))
    assert ("invalid", said) == (result["verdict"], result["benchmarks"][0]["reason"])
    reverse, _ = gate(tmp_path / "candidate", base)
    assert ("invalid", "other samples") == (
        reverse["verdict"],
        reverse["benchmarks"][0]["reason"].partition(":")[0],
    )


def test_a_benchmark_of_one_run_alone_is_named(base, tmp_path):
    """Whichever of the two lacks it: what was not run is not passed."""
    tasks = {"okvqa_val": rows_of(draw(2000)), "gqa_testdev": rows_of(draw(10))}
    more = make_run(tmp_path / "more", tasks)
    for runs in ((base, more), (more, base)):
        result, _ = gate(*runs)
        benchmarks = by_task(result)
        assert "invalid" == result["verdict"] == benchmarks["gqa_testdev"]["verdict"]
        assert ("base has no figure of it", "pass") == (
            benchmarks["gqa_testdev"]["reason"],
            benchmarks["okvqa_val"]["verdict"],
        )


def judged(name="gpt-4 at a", **more):
    judge = {"model": "gpt-4", "prompt": {"digest": "1"}, "parameters": {"temperature": 0}} | more
    values = {str(n): {"touchstone_score": 6.0 + n % 3} for n in range(30)}
    return {
        "touchstone_en": {
            "server": name,
            "metrics": {"touchstone_score": 7.0},
            "samples": values,
            "judge": {"reported": ["gpt-4-0613"], **judge},
        }
    }


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (judged(), ""),
        (judged("gpt-4o at a"), "scored by gpt-4 at a and by gpt-4o at a"),
        (judged(prompt={"digest": "2"}), "other judge, by its prompt: digest"),
        (judged(parameters={"temperature": 1}), "other judge, by its parameters: temperature"),
        (
            judged(as_published=True),
            "scores outside 1 to 10 count in only one of the runs (judge --as-published)",
        ),
        ({}, "scored by gpt-4 at a and by no server or judge"),
    ],
    ids=["the same", "model", "prompt", "parameters", "scale", "not judged"],
)
def test_figures_of_two_judges_are_not_compared(tmp_path, judge, said):
    """A judge's values of samples do decide, if both runs had the same judge."""
    tasks = {"touchstone_en": rows_of([0.0] * 30, 1)}
    runs = [
        make_run(tmp_path / name, tasks, hidden=tasks, server=server)
        for name, server in (("a", judged()), ("b", judge))
    ]
    result, _ = gate(*runs)
    assert ("invalid" if said else "pass", said) == (
        result["verdict"],
        result["benchmarks"][0]["reason"],
    )
    if not said:
        assert 700.0 == result["benchmarks"][0]["base"]


def test_a_sample_that_a_judge_gave_no_value_is_named(tmp_path):
    """Also the first one, which shows whether a server has values at all."""
    tasks = {"touchstone_en": rows_of([0.0] * 30, 1)}
    partial = judged()
    del partial["touchstone_en"]["samples"]["0"]
    runs = [
        make_run(tmp_path / name, tasks, hidden=tasks, server=server)
        for name, server in (("a", partial), ("b", partial))
    ]
    result, _ = gate(*runs)
    assert ("invalid", "a: sample '0' has no touchstone_score") == (
        result["verdict"],
        result["benchmarks"][0]["reason"],
    )


def test_what_only_a_server_scores_is_left_out(tmp_path):
    """It has no values to pair, with a figure or without, and decides nothing."""
    tasks = {"okvqa_val": rows_of(draw(30)), "docvqa_test": rows_of(draw(30))}
    figure = {"docvqa_test": {"server": "RRC", "metrics": {"anls": 0.9}}}
    worse = {"docvqa_test": {"server": "RRC", "metrics": {"anls": 0.1}}}
    base = make_run(tmp_path / "a", tasks, hidden=["docvqa_test"], server=figure)
    for name, server, by in (("b", worse, "RRC"), ("c", {}, "RRC")):
        candidate = make_run(tmp_path / name, tasks, hidden=["docvqa_test"], server=server)
        result, _ = gate(base, candidate)
        benchmark = by_task(result)["docvqa_test"]
        assert ("pass", "left out") == (result["verdict"], benchmark["verdict"])
        assert f"scored by {by}, which tells no value of a sample" == benchmark["reason"]


def test_nothing_that_can_be_compared_is_no_pass(tmp_path):
    """Two runs of server-scored splits alone tell nothing of a checkpoint."""
    tasks = {"docvqa_test": rows_of(draw(30))}
    runs = [make_run(tmp_path / name, tasks, hidden=tasks) for name in "ab"]
    junit = tmp_path / "gate.xml"
    result, text = gate(*runs, "--junit", junit)
    assert ["no benchmark has values of samples in both runs"] == result["faults"]
    assert "invalid: the runs cannot be compared: no benchmark has values of samples" in text
    suite = ElementTree.parse(junit).getroot()
    assert ("2", "1", "0", "1") == tuple(
        suite.get(name) for name in ("tests", "errors", "failures", "skipped")
    )


def test_other_tasks_altogether_are_no_pass(base, tmp_path):
    result, _ = gate(base, candidate_of(tmp_path, task="gqa_testdev"))
    assert ("invalid", 2) == (result["verdict"], len(result["benchmarks"]))


def test_the_same_folder_twice_is_a_slip(base, tmp_path):
    """Written another way, too: it would always pass."""
    (tmp_path / "link").symlink_to(base)
    for again in (base, base / ".." / base.name, tmp_path / "link"):
        done = compare(base, again, "--gate")
        assert (2, True) == (done.returncode, "are the same run" in done.stderr)


@pytest.mark.parametrize("margin", ["-1", "nan", "inf", "x"])
def test_a_margin_is_a_number_of_points(base, tmp_path, margin):
    """Not a number is below no bound: nothing would ever pass, and no message would say why."""
    done = compare(base, candidate_of(tmp_path), "--gate", "--margin", margin)
    assert done.returncode == 2
    assert "--margin" in done.stderr


@pytest.mark.parametrize("margin", ["0", "3", "100"])
def test_the_margin_decides_what_may_be_lost(base, tmp_path, margin):
    """Two points below: too much for a margin of 0, well within 3."""
    result, text = gate(
        base, candidate_of(tmp_path, lambda rows: lowered(rows, 40)), "--margin", margin
    )
    assert ("regressed" if margin == "0" else "pass") == result["verdict"]
    assert float(margin) == result["margin"]
    assert f"{margin} points" in text


# Damage


def damaged(folder, line):
    file = folder / "okvqa_val" / "scores.jsonl"
    rows = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*rows[:3], line, *rows[4:]]))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id":"3","ima\n', "line 4: invalid JSON"),
        (b"\xff\xfe\n", "line 4: this is UTF-16"),
        (b"[1]\n", "line 4: input should be an object, [1] found"),
        (b"\n", "line 4: invalid JSON"),
        (b'{"id":"3","vqa_accuracy":1.0}\n', "the texts 'id' and 'image' expected"),
        (b'{"id":"3","image":["a"],"vqa_accuracy":1.0}\n', "line 4: image: input should be a"),
        (b'{"id":3,"image":"img/1.jpg","vqa_accuracy":1.0}\n', "line 4: id: a text expected, 3.0"),
        (b'{"image":"img/1.jpg","vqa_accuracy":1.0}\n', "the texts 'id' and 'image' expected"),
        (b'{"id":"3","image":"img/1.jpg"}\n', "scores.jsonl: this is not what summary.json was"),
        (b'{"id":"3","image":"img/1.jpg","vqa_accuracy":NaN}\n', "line 4: vqa_accuracy: input"),
        (b'{"id":"3","image":"img/1.jpg","vqa_accuracy":null}\n', "a valid number, None found"),
        (b'{"id":"3","image":"img/1.jpg","vqa_accuracy":"nan"}\n', "a number expected, 'nan'"),
        (b'{"id":"3","image":"img/1.jpg","vqa_accuracy":"0.5"}\n', "a number expected, '0.5'"),
        (b'{"id":"3","image":"img/1.jpg","vqa_accuracy":1e999}\n', "line 4: vqa_accuracy: input"),
        (b'{"id":"3","image":"img/1.jpg","vqa_accuracy":true}\n', "a valid number, True found"),
        (b"", "scores.jsonl: this is not what summary.json was made from"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_damaged_scores_are_named_and_never_compared(few, tmp_path, line, said, side):
    """The benchmark is invalid; the file, the sample or the run is said."""
    runs = [shutil.copytree(few, tmp_path / "a"), shutil.copytree(few, tmp_path / "b")]
    damaged(runs[side], line)
    result, _ = gate(*runs)
    assert "invalid" == result["verdict"]
    assert said in result["benchmarks"][0]["reason"]


def test_scores_that_are_gone_or_cut_off_alike_are_named(few, tmp_path):
    """A disk that was full when both were copied leaves two equal halves."""
    runs = [shutil.copytree(few, tmp_path / "a"), shutil.copytree(few, tmp_path / "b")]
    for run in runs:
        file = run / "okvqa_val" / "scores.jsonl"
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:20]))
    result, _ = gate(*runs)
    expected = f"{runs[0]}/okvqa_val/scores.jsonl: this is not what summary.json was made from"
    assert ("invalid", True) == (
        result["verdict"],
        result["benchmarks"][0]["reason"].startswith(expected),
    )
    for content in (b"", None):
        for run in runs:
            file = run / "okvqa_val" / "scores.jsonl"
            file.unlink() if content is None else file.write_bytes(content)
        assert "invalid" == gate(*runs)[0]["verdict"]


@pytest.mark.parametrize(
    "tasks", [{}, {"okvqa_val": None}, {"okvqa_val": [1]}, {"okvqa_val": "?"}], ids=str
)
def test_a_manifest_that_does_not_tell_what_was_asked_is_no_proof_that_it_was_the_same(
    few, tmp_path, tasks
):
    """Two that tell nothing are equal."""
    runs = [shutil.copytree(few, tmp_path / "a"), shutil.copytree(few, tmp_path / "b")]
    for run in runs:
        manifest = {"name": run.name, "model": {}, "tasks": tasks}
        (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    result, _ = gate(*runs)
    said = result["benchmarks"][0]["reason"] if result["benchmarks"] else result["faults"][0]
    expected = f"{runs[0]}/manifest.json: tasks.okvqa_val: input should be"
    if not tasks:
        expected = "a: its manifest does not tell how it was asked"
    assert ("invalid", True) == (result["verdict"], said.startswith(expected))


@pytest.mark.parametrize("file", ["manifest.json", "okvqa_val/summary.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", None])
def test_a_folder_that_is_no_run_is_invalid_and_its_file_is_named(few, tmp_path, file, content):
    """There is nothing to compare; only for a gate is that a verdict."""
    run = shutil.copytree(few, tmp_path / "run")
    (run / file).unlink() if content is None else (run / file).write_bytes(content)
    for runs in ((few, run), (run, few)):
        done = compare(*runs)
        assert done.returncode == 2
        assert str(run) in done.stderr
        result, _ = gate(*runs)
        assert ("invalid", True) == (result["verdict"], str(run) in result["faults"][0])


# What is said


def three(tmp_path, names=("base", "now"), ids=str):
    """Three benchmarks that fell by half a point, 20 and 5 points, and one of a server."""
    tasks = [{}, {}]
    for task, fallen in (("gqa_testdev", 2), ("okvqa_val", 80), ("textvqa_val", 20)):
        rows = [(ids(int(i)), image, value) for i, image, value in rows_of(draw(400, fallen), 1)]
        tasks[0][task], tasks[1][task] = rows, lowered(rows, fallen)
    for each in tasks:
        each["docvqa_test"] = rows_of([0.0])
    return [
        make_run(tmp_path / f"r{side}", tasks[side], name=names[side], hidden=["docvqa_test"])
        for side in (0, 1)
    ]


def test_the_worst_benchmark_comes_first_and_so_do_its_flips(tmp_path):
    """In every form; what is left out comes last."""
    runs = three(tmp_path)
    result, text = gate(*runs, "--markdown", tmp_path / "c.md", "--junit", tmp_path / "c.xml")
    expected = ["okvqa_val", "textvqa_val", "gqa_testdev", "docvqa_test"]
    assert expected == [each["task"] for each in result["benchmarks"]]
    assert ["okvqa_val"] * 80 + ["textvqa_val"] * 20 + ["gqa_testdev"] * 2 == [
        flip["task"] for flip in result["flips"]
    ]
    (flip, *_) = result["flips"]
    assert {"task", "sample", "image", "base", "candidate"} == set(flip)
    cases = ElementTree.parse(tmp_path / "c.xml").getroot().findall("testcase")
    assert expected == [case.get("name") for case in cases]
    for form in (text, (tmp_path / "c.md").read_text("utf-8")):
        places = [form.index(task) for task in expected[:3]]
        assert sorted(places) == places
    lines = [line for line in text.splitlines() if "samples worse" in line]
    assert ["okvqa_val", "textvqa_val", "gqa_testdev"] == [line.split(":")[0] for line in lines]


def test_the_largest_falls_of_a_benchmark_come_first(tmp_path):
    """Half a point lost is no news beside an answer that is wrong now."""
    before, after = [1.0] * 4 + [0.0], [0.9, 0.0, 1.0, 0.3, 1.0]
    runs = [
        make_run(tmp_path / name, {"okvqa_val": rows_of(values, 1)})
        for name, values in (("a", before), ("b", after))
    ]
    result, text = gate(*runs)
    expected = [("1", 1.0, 0.0), ("3", 1.0, 0.3), ("0", 1.0, 0.9), ("4", 0.0, 1.0)]
    assert expected == [(f["sample"], f["base"], f["candidate"]) for f in result["flips"]]
    assert "okvqa_val: 3 samples worse, 1 better; the worst: 1, 3, 0\n" in text


def test_junit_has_a_case_for_each_benchmark_and_counts_them(tmp_path):
    """Regressed fails, inconclusive and invalid are errors, what is left out is skipped."""
    runs = three(tmp_path)
    alone = make_run(tmp_path / "more", {"vizwiz_val": rows_of([1.0])})
    shutil.copytree(alone / "vizwiz_val", runs[1] / "vizwiz_val")
    result, _ = gate(*runs, "--junit", tmp_path / "gate.xml")
    assert "invalid" == result["verdict"]
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    cases = {case.get("name"): [c.tag for c in case] for case in suite.iter("testcase")}
    assert {
        "vizwiz_val": ["error"],
        "okvqa_val": ["failure"],
        "textvqa_val": ["failure"],
        "gqa_testdev": ["error"],
        "docvqa_test": ["skipped"],
    } == cases
    counts = {"tests": "5", "failures": "2", "errors": "2", "skipped": "1"}
    assert counts == {name: suite.get(name) for name in counts}
    for case, message in ((c, c[0].get("message")) for c in suite.iter("testcase")):
        assert message.startswith(by_task(result)[case.get("name")]["verdict"])


def test_figures_are_whole_at_the_width_of_a_log(tmp_path):
    """A CI's log has 80 columns: a verdict or a figure that is cut off is none."""
    names = ["chartqa_test_augmented", "grit_refexp_ablation", "touchstone_en", "l" * 80]
    rows = {name: rows_of([7.0 if "touch" in name else 1.0] * 400, 1) for name in names}
    metrics = {"touchstone_en": Corpus(lambda texts, _: [float(text) for text in texts], mean=True)}
    base = make_run(tmp_path / "a", rows, metrics=metrics)
    lower = {name: lowered(each, 3) for name, each in rows.items()}
    result, text = gate(base, make_run(tmp_path / "b", lower, metrics=metrics))
    lines = text.splitlines()[: 3 + sum(len(name) // 22 for name in names)]
    assert all(len(line) <= 80 for line in lines)
    for each in result["benchmarks"]:
        figures = f"{each['base']:.2f} {each['candidate']:.2f} {each['difference']:+.2f}".split()
        assert any([each["verdict"], *figures] == line.split()[1:5] for line in lines)


def test_a_terminal_that_knows_ascii_alone_shows_all(base, tmp_path):
    """As a CI's may: the verdict was lost to an exception there."""
    candidate = candidate_of(tmp_path, entries={"okvqa_val": {"prompt": "é – ☃"}})
    program = [sys.executable, "-W", "error", "-c", "from eval.cli import main; main()"]
    done = subprocess.run(
        [*program, "compare", base, candidate, "--gate"],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "40"},
    )
    assert (12, b"") == (done.returncode, done.stderr)
    assert b"and ? ? ?" in done.stdout


class Page(HTMLParser):
    """All tags of a page with their attributes, and all its text."""

    def __init__(self, markdown):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(MarkdownIt("commonmark").enable("table").render(markdown))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_data(self, data):
        self.text += data


def texts_of(markdown):
    return Page(markdown).text


def forms(folder, runs):
    """Markdown, JUnit, terminal and JSON of a comparison."""
    files = [folder / f"gate.{end}" for end in ("md", "xml")]
    result, text = gate(*runs, "--markdown", files[0], "--junit", files[1])
    return files[0].read_text("utf-8"), ElementTree.parse(files[1]), text, result


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return forms(folder, three(folder))


@settings(max_examples=3)
@given(st.text(min_size=1, max_size=60))
@example(HOSTILE)
@example("x" * 100_000)
@example("</summary></details><img src=x onerror=alert(1)>")
@example("]]></error><a href='javascript:x'>")
@example("\u202e\u2066\u200f\x00\x7f\u2028\ufffe")
def test_hostile_names_of_runs_and_samples_stay_names(tmp_path_factory, plain, name):
    """Nothing means anything to Markdown, HTML, XML or a terminal, and nothing is long."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile = forms(folder, three(folder, (name, name), lambda n: f"{name}{n}"))
    assert Page(plain[0]).tags == Page(hostile[0]).tags
    assert [each.tag for each in plain[1].iter()] == [each.tag for each in hostile[1].iter()]
    assert plain[2].count("\n") == hostile[2].count("\n")
    assert all(len(form) < 12_000 for form in (hostile[0], hostile[2]))
    assert {flip["sample"] for flip in hostile[3]["flips"]} == {
        f"{name}{flip['sample']}" for flip in plain[3]["flips"]
    }


TAGS = {"h3", "strong", "p", "table", "thead", "tbody", "tr", "th", "td"}


def test_hostile_settings_stay_text(base, tmp_path):
    """What a manifest or a judge is called reaches a comment by its reason alone."""
    for number, entry in enumerate(
        (
            {"prompt": HOSTILE},
            {"protocol": "p"} | {"sources": {HOSTILE: "1" * 64}},
            {"few_shot": [HOSTILE * 2000]},
            {"decode": {HOSTILE: 1}},
        )
    ):
        candidate = make_run(tmp_path / f"c{number}", {"okvqa_val": rows_of(draw(2000))})
        manifest = json.loads((candidate / "manifest.json").read_bytes())
        manifest["tasks"]["okvqa_val"] |= entry
        (candidate / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        files = tmp_path / "c.md", tmp_path / "c.xml"
        result, _ = gate(base, candidate, "--markdown", files[0], "--junit", files[1])
        assert "invalid" == result["verdict"]
        page = Page(files[0].read_text("utf-8"))
        assert {tag for tag, _ in page.tags} <= TAGS
        assert len(page.text) < 2000
        ElementTree.parse(files[1])


def test_a_hostile_folder_stays_a_name(base, tmp_path):
    """The path of a damaged file is printed, whatever its folder is called."""
    folder = shutil.copytree(base, tmp_path / "a\x1b[2J\n|b\u202e")
    damaged(folder, b"?\n")
    result, text = gate(base, folder, "--markdown", tmp_path / "c.md")
    assert "line 4" in result["benchmarks"][0]["reason"]
    assert "line 4" in text
    assert 5 == sum(tag == "tr" for tag, _ in Page((tmp_path / "c.md").read_text("utf-8")).tags)


def test_a_task_with_a_hostile_name_is_refused(base, tmp_path):
    """A task's name is a folder's; no other reaches a table."""
    run = shutil.copytree(base, tmp_path / "run")
    (run / "okvqa_val").rename(run / "<b>okvqa")
    summary = run / "<b>okvqa" / "summary.json"
    fields = json.loads(summary.read_bytes()) | {"task": "<b>okvqa"}
    summary.write_text(json.dumps(fields), "utf-8")
    done = compare(base, run)
    assert (2, True) == (done.returncode, "a task's name expected" in done.stderr)


def test_json_is_what_the_comparison_holds(tmp_path):
    """Every figure unrounded, every flip, and nothing that another parser would refuse."""
    runs = three(tmp_path)
    result, _ = gate(*runs)
    comparison = compare_runs(*map(load_run, runs), CARD)
    assert [each.difference for each in comparison.benchmarks] == [
        each["difference"] for each in result["benchmarks"]
    ]
    assert (comparison.verdict, comparison.exit_code, len(comparison.flips)) == (
        result["verdict"],
        result["exit_code"],
        len(result["flips"]),
    )
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_file_that_cannot_be_written_is_an_error(base, tmp_path):
    """Not a verdict: a CI that finds no file must not go on as if there were one."""
    done = compare(base, candidate_of(tmp_path), "--gate", "--junit", tmp_path / "no" / "x.xml")
    assert (2, True) == (done.returncode, "cannot be written" in done.stderr)


# A real run


class Says:
    """Answers every question with one of two words."""

    def __init__(self, words):
        self.words = words

    def answer(self, requests):
        for request in requests:
            yield Prediction(request.id, self.words[int(request.id[-2:].strip("/")) % 2])

    def describe(self):
        return {"digest": "0" * 64, "dtype": "float32"}


def real_run(folder, data, words):
    (task,) = find_tasks(["okvqa_val"])
    backend = Says(words)
    entries = {task.name: spec_entry(task, data, Spec())}
    manifest = {"name": folder.name, "model": backend.describe(), "tasks": entries}
    run = RunFolder.start(folder, manifest)
    answer_all(run, [task], data, {task.name: Spec()}, backend)
    run.answers(task.name).finalize(task, data, Spec(), run.digests())
    score_run(run, task, data)
    return folder


def test_runs_as_they_are_left_behind_can_be_compared(tmp_path):
    """Answered, finalized and scored; the runs made up above have the same keys."""
    data = make_data(tmp_path / "data", 30)
    first = real_run(tmp_path / "a", data, ("red", "red"))
    second = real_run(tmp_path / "b", data, ("red", "blue"))
    assert "pass" == gate(first, real_run(tmp_path / "c", data, ("red", "red")))[0]["verdict"]
    result, text = gate(first, second)
    (benchmark,) = result["benchmarks"]
    assert ("inconclusive", 30, 3) == (result["verdict"], benchmark["samples"], benchmark["images"])
    assert "3 images are too few to show any drop" in text
    made = make_run(tmp_path / "d", {"okvqa_val": rows_of([1.0])})
    for file in ("manifest.json", "okvqa_val/summary.json"):
        keys = [set(json.loads((run / file).read_bytes())) for run in (first, made)]
        assert keys[0] == keys[1]
    entries = [json.loads((r / "manifest.json").read_bytes())["tasks"] for r in (first, made)]
    assert set(entries[0]["okvqa_val"]) == set(entries[1]["okvqa_val"])
    rows = [
        json.loads((r / "okvqa_val" / "scores.jsonl").read_text("utf-8").splitlines()[0])
        for r in (first, made)
    ]
    assert set(rows[0]) - {"vqa_accuracy_official"} == set(rows[1])


def test_the_report_of_a_run_that_regressed_is_as_before(base, tmp_path):
    """Comparing writes nothing into either run."""
    candidate = candidate_of(tmp_path, lambda rows: lowered(rows, 100))
    before = {p: p.read_bytes() for r in (base, candidate) for p in r.rglob("*") if p.is_file()}
    gate(base, candidate)
    after = {p: p.read_bytes() for r in (base, candidate) for p in r.rglob("*") if p.is_file()}
    after.pop(base.parent / "gate.json", None)
    assert before == after


# Properties

QUARTERS = st.integers(0, 4).map(lambda quarters: quarters / 4)
VALUES = st.lists(st.tuples(QUARTERS, QUARTERS, st.integers(0, 9)), min_size=1, max_size=40)


def compared(folder, *tasks, margin=0.5, shift=0.0, names=None):
    """Two runs of these tasks, each of (base, candidate, image), compared; the folder is new."""
    names = names or ["okvqa_val", "gqa_testdev", "textvqa_val", "refcoco_val"]
    runs = []
    for side in (0, 1):
        scored = {
            name: [(str(n), f"{each[2]}.jpg", each[side] + shift) for n, each in enumerate(values)]
            for name, values in zip(names, tasks, strict=False)
        }
        runs.append(load_run(make_run(folder / str(side), scored)))
    return compare_runs(*runs, CARD, margin)


def figures(comparison):
    return {
        each.task: (
            each.difference,
            each.low,
            each.high,
            each.p_worse,
            each.p_within,
            each.smallest,
        )
        for each in comparison.benchmarks
    }


@unhurried
@given(VALUES)
def test_the_other_way_round_is_the_opposite(tmp_path_factory, values):
    """Base and candidate swapped: the difference, its interval and the flips change sides."""
    there = compared(tmp_path_factory.mktemp("p"), values)
    back = compared(tmp_path_factory.mktemp("p"), [(b, a, image) for a, b, image in values])
    (one,), (other,) = there.benchmarks, back.benchmarks
    assert one.difference == -other.difference
    assert (one.better, one.worse, one.base) == (other.worse, other.better, other.candidate)
    assert one.smallest == other.smallest
    assert (one.low is None) == (other.low is None)
    if one.low is not None:
        assert (one.low, one.high) == (-other.high, -other.low)
    assert {(f.sample, f.base, f.candidate) for f in there.flips} == {
        (f.sample, f.candidate, f.base) for f in back.flips
    }
    assert not {"regressed"} <= {there.verdict, back.verdict} or there.verdict != back.verdict


@unhurried
@given(VALUES, st.sampled_from([0.125, 0.5]))
def test_figures_of_both_runs_shifted_alike_change_nothing(tmp_path_factory, values, shift):
    """What counts is the difference."""
    values = [(a / 2, b / 2, image) for a, b, image in values]
    one = compared(tmp_path_factory.mktemp("p"), values)
    other = compared(tmp_path_factory.mktemp("p"), values, shift=shift)
    assert figures(one) == figures(other)
    assert one.verdict == other.verdict
    assert pytest.approx(one.benchmarks[0].base + 100 * shift) == other.benchmarks[0].base


@unhurried
@given(st.lists(VALUES, min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_order_of_tasks_and_samples_changes_no_figure(tmp_path_factory, tasks, random):
    """Neither of a manifest nor of a file."""
    names = ["okvqa_val", "gqa_testdev", "textvqa_val", "refcoco_val"][: len(tasks)]
    one = compared(tmp_path_factory.mktemp("p"), *tasks, names=names)
    numbers = random.sample(range(len(tasks)), len(tasks))
    shuffled = [random.sample(tasks[n], len(tasks[n])) for n in numbers]
    other = compared(tmp_path_factory.mktemp("p"), *shuffled, names=[names[n] for n in numbers])
    assert figures(one) == figures(other)
    assert [each.verdict for each in one.benchmarks] == [each.verdict for each in other.benchmarks]
    assert [each.task for each in one.benchmarks] == [each.task for each in other.benchmarks]


@unhurried
@given(VALUES, st.lists(st.integers(0, 120), min_size=2, max_size=4, unique=True).map(sorted))
def test_a_larger_margin_lets_more_pass(tmp_path_factory, values, margins):
    """What passed passes; what was not below the base is not, by any margin."""
    folder = tmp_path_factory.mktemp("p")
    compared(folder, values)
    runs = [load_run(folder / str(side)) for side in (0, 1)]
    verdicts = [compare_runs(*runs, CARD, margin).verdict for margin in margins]
    for before, after in pairwise(verdicts):
        assert after in {"pass": ["pass"], "regressed": ["regressed", "pass"]}.get(
            before, ["inconclusive", "pass"]
        )


@unhurried
@given(VALUES, st.lists(VALUES, min_size=1, max_size=3), st.integers(0, 50))
def test_more_benchmarks_that_pass_make_no_regression(tmp_path_factory, values, more, margin):
    """Holm's p-values only grow with their number: more tests never make more regressions."""
    unchanged = [[(a, a, image) for a, _, image in each] for each in more]
    one = compared(tmp_path_factory.mktemp("p"), values, margin=margin)
    other = compared(tmp_path_factory.mktemp("p"), values, *unchanged, margin=margin)
    verdicts = {each.task: each.verdict for each in other.benchmarks}
    (alone,) = one.benchmarks
    assert all(verdicts[each] == "pass" for each in verdicts.keys() - {alone.task})
    assert verdicts[alone.task] in {"regressed": ["regressed", "inconclusive"]}.get(
        alone.verdict, [alone.verdict]
    )


@unhurried
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_the_whole_is_as_good_as_its_worst_benchmark(tmp_path_factory, tasks):
    """Regressed where one is, passed only where each is; the worst first, with every flip."""
    comparison = compared(tmp_path_factory.mktemp("p"), *tasks)
    verdicts = [each.verdict for each in comparison.benchmarks]
    expected = next(v for v in ("regressed", "inconclusive", "pass") if v in verdicts)
    assert expected == comparison.verdict
    differences = [each.difference for each in comparison.benchmarks]
    assert sorted(differences) == differences
    assert sum(each.better + each.worse for each in comparison.benchmarks) == len(comparison.flips)
    for each in comparison.benchmarks:
        assert pytest.approx(each.candidate - each.base, abs=1e-9) == each.difference


# False alarms and power


def test_alarms_are_few_and_drops_are_found_as_promised():
    """By a short simulation at the sizes of the real benchmarks, or its exit status would tell: at
    most 5% alarms, and drops found as often as `smallest` says. results/bench/gate.md has the long
    one.
    """
    program = [sys.executable, "-W", "error", str(BENCH), "--quick"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert "| the same answers | 0.0% | 0.0% | 100.0% |" in done.stdout
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    shares = {row[0]: row[1:] for row in rows if len(row) == 4}
    assert "100.0%" == shares["worse by 1 in every benchmark"][0]
    assert float(shares["equally good"][0].rstrip("%")) < 13  # 5% of 120, but for chance
    assert 20 == sum(len(row) == 13 and row[1][0].isdigit() for row in rows)
