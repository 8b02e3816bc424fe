"""The gate in a CI: how an inconclusive comparison ends, which runs it names; and metrics that it
cannot test.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gated import compare, gate, lowered, make_run, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from small import command

from eval.api import Generate, Prediction
from eval.data.declare import Corpus, Sample, Task
from eval.scoring.score import Scoring

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "EVALUATION.md"
ELEMENTS = {"error": "error", "fail": "failure", "skip": "skipped"}
COUNTED = {"error": "errors", "fail": "failures", "skip": "skipped"}
CODES = {"error": 11, "fail": 10, "skip": 0}


def set_digest(folder, digest):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["model"] |= {"digest": digest, "engine": "shared", "generation": 7}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


@pytest.fixture(scope="module")
def equal(tmp_path_factory):
    """Two equally good runs whose answers differ in two of 60 samples, and one that is worse."""
    folder = tmp_path_factory.mktemp("equal")
    values = [1.0] * 58 + [0.0, 1.0]
    swapped = [0.0, *values[1:58], 1.0, 1.0]
    named = {"base": values, "candidate": swapped, "worse": [0.0] * 40 + values[40:]}
    runs = [
        make_run(
            folder / name, {"gqa_testdev": rows_of(values, 4), "okvqa_val": rows_of([1.0] * 20)}
        )
        for name, values in named.items()
    ]
    return [set_digest(run, f"{n}" * 64) for n, run in enumerate(runs, 1)]


# Inconclusive


@pytest.mark.case("environment/12")
@pytest.mark.parametrize("option", ["error", "fail", "skip"])
def test_inconclusive_sets_the_exit_code_and_junit_together(equal, tmp_path, option):
    """An action that reads JUnit and a shell that reads the exit code agree, so that a CI needs no
    code around the command; without --gate the exit code says nothing.
    """
    file = tmp_path / "gate.xml"
    arguments = (
        *equal[:2],
        "--inconclusive",
        option,
        "--junit",
        file,
        "--json",
        tmp_path / "c.json",
    )
    assert compare(*arguments).returncode == 0
    without = file.read_bytes()
    assert compare(*arguments, "--gate").returncode == CODES[option]
    assert file.read_bytes() == without
    suite = ElementTree.fromstring(without)
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert {"gqa_testdev": [ELEMENTS[option]], "okvqa_val": []} == cases
    counts = {name: suite.get(name) for name in ("tests", "errors", "failures", "skipped")}
    expected = {"tests": "2", "errors": "0", "failures": "0", "skipped": "0"}
    assert expected | {COUNTED[option]: "1"} == counts
    result = json.loads((tmp_path / "c.json").read_bytes())
    assert ("inconclusive", option, CODES[option]) == (
        result["verdict"],
        result["inconclusive"],
        result["exit_code"],
    )


def test_an_error_is_what_inconclusive_is_by_default(equal, tmp_path):
    result, _ = gate(*equal[:2], "--junit", tmp_path / "gate.xml")
    assert ("error", 11) == (result["inconclusive"], result["exit_code"])
    assert "1" == ElementTree.parse(tmp_path / "gate.xml").getroot().get("errors")


@pytest.mark.parametrize("option", ["error", "fail", "skip"])
def test_what_regressed_or_is_invalid_is_not_skipped(equal, tmp_path, option):
    """The option is about inconclusive benchmarks alone, also beside a regressed or invalid one."""
    base, candidate, worse = equal
    asked = ("--gate", "--inconclusive", option, "--junit", tmp_path / "gate.xml")
    assert compare(base, worse, *asked).returncode == 10
    assert "1" == ElementTree.parse(tmp_path / "gate.xml").getroot().get("failures")
    partial = shutil.copytree(candidate, tmp_path / "partial")
    shutil.rmtree(partial / "okvqa_val")
    assert compare(base, partial, *asked).returncode == 12
    cases = ElementTree.parse(tmp_path / "gate.xml").getroot().iter("testcase")
    tags = {case.get("name"): [child.tag for child in case] for case in cases}
    assert {"okvqa_val": ["error"], "gqa_testdev": [ELEMENTS[option]]} == tags


def test_another_way_to_count_is_refused(equal):
    """With the ways that there are."""
    done = compare(*equal[:2], "--gate", "--inconclusive", "ignore")
    assert done.returncode == 2
    assert all(option in done.stderr for option in CODES)


@pytest.mark.parametrize(
    ("given_variables", "expected"),
    [((), ""), (("INCONCLUSIVE=skip", "MARGIN=1"), "--gate --margin 1 --inconclusive skip")],
)
def test_make_regression_hands_the_option_on(given_variables, expected):
    done = subprocess.run(
        ["make", "-n", "regression", "BASE=a", "CANDIDATE=b", *given_variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "INCONCLUSIVE")},
    )
    printed = " ".join(done.stdout.replace("\\\n", " ").split())
    assert f'compare "a" "b" {expected or "--gate"}' in printed
    assert ("--inconclusive" in printed) == bool(expected)


# Which runs


def test_every_form_identifies_both_runs(equal, tmp_path):
    """By name, folder and digest of the weights: two runs of one name are two all the same."""
    base, candidate, _ = equal
    files = {name: tmp_path / f"gate.{name}" for name in ("md", "xml", "json")}
    done = compare(
        base, candidate, "--markdown", files["md"], "--junit", files["xml"], "--json", files["json"]
    )
    for folder, digest in ((base, "1" * 64), (candidate, "2" * 64)):
        assert str(folder) in done.stdout
        assert digest[:12] in done.stdout
        for file in files.values():
            text = file.read_text("utf-8")
            assert digest in text
            assert folder.name in text
    result = json.loads(files["json"].read_bytes())
    assert ("base", "candidate") == (result["base"], result["candidate"])
    assert {
        "name": "candidate",
        "folder": str(candidate),
        "weights": "2" * 64,
        "engine": "shared",
        "generation": "7",
    } == result["runs"]["candidate"]
    properties = {
        each.get("name"): each.get("value")
        for each in ElementTree.parse(files["xml"]).getroot().iter("property")
    }
    assert (str(base), "1" * 64) == (properties["base.folder"], properties["base.weights"])
    assert (str(candidate), "2" * 64) == tuple(
        properties[f"candidate.{name}"] for name in ("folder", "weights")
    )


def test_weights_that_no_manifest_names_are_unknown(equal, tmp_path):
    """A back end that is a server has no digest."""
    run = shutil.copytree(equal[1], tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_bytes())
    del manifest["model"]["digest"]
    (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    done = compare(equal[0], run, "--markdown", tmp_path / "c.md", "--junit", tmp_path / "c.xml")
    assert "weights unknown" in done.stdout
    assert "| unknown |" in (tmp_path / "c.md").read_text("utf-8")
    ElementTree.parse(tmp_path / "c.xml")


@pytest.mark.parametrize("name", [b"a\xffb", b"\x1b[2J<&\">'|", "\u202e\ufffe".encode()])
def test_hostile_folders_are_written_in_every_form(equal, tmp_path, name):
    """No byte of a folder's name breaks XML, JSON or Markdown, or does anything to a terminal. One
    that is not UTF-8 is no argument, but a link may lead to it.
    """
    folder = shutil.copytree(equal[1], tmp_path / os.fsdecode(name))
    run = tmp_path / "link"
    run.symlink_to(folder)
    files = [tmp_path / f"gate.{end}" for end in ("md", "xml", "json")]
    done = compare(
        equal[0], run, "--gate", "--markdown", files[0], "--junit", files[1], "--json", files[2]
    )
    assert done.returncode == 11
    folder = json.loads(files[2].read_bytes())["runs"]["candidate"]["folder"]
    properties = ElementTree.parse(files[1]).getroot().iter("property")
    assert folder in [each.get("value") for each in properties]
    assert folder.startswith(str(tmp_path))
    assert folder.isprintable()
    assert files[0].read_text("utf-8").isprintable() or "\n" in files[0].read_text("utf-8")


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_junit_is_well_formed_whatever_a_text_holds(text):
    """Names and folders of runs come here printable: what XML cannot hold is replaced before."""
    from eval.report.forms.verdict import comparison_junit
    from eval.report.gate import RunComparison, RunId

    shown = "".join(c if c.isprintable() else "?" for c in text)
    run = RunId(shown, shown, shown, shown, shown)
    comparison = RunComparison(run, run, 0.5, "invalid", (), (), (text,))
    suite = ElementTree.fromstring(comparison_junit(comparison))
    assert shown == next(suite.iter("property")).get("value")
    assert len(list(suite.iter("error"))) == 1


# Metrics that are not means


def f1(texts, references):
    """Of two kinds of answers, once for all samples."""
    hits = sum(
        text == reference == "1.0" for text, reference in zip(texts, references, strict=True)
    )
    score = 2 * hits / max(texts.count("1.0") + references.count("1.0"), 1)
    return [score] * len(texts)


def f1_run(folder, values, metric=None):
    """A plug-in's benchmark, of whose samples the metric says nothing."""
    rows = rows_of(values, 1)
    metrics = {"shapes_test": metric or Corpus(lambda texts, _: f1(texts, ["1.0"] * len(texts)))}
    return make_run(folder, {"shapes_test": rows}, metrics=metrics, name=folder.name)


HALF = [float(n % 2) for n in range(60)]
REASON = "vqa_accuracy is not a mean of per-sample values"


@pytest.fixture(scope="module")
def of_f1(tmp_path_factory):
    """A base, a candidate with a worse F1, and the metric called by the name that make_run has."""
    folder = tmp_path_factory.mktemp("f1")
    return f1_run(folder / "a", HALF), f1_run(folder / "b", [0.0] * 20 + HALF[20:])


def test_a_metric_that_is_not_a_mean_has_no_interval_and_no_values(of_f1):
    """Its score repeated was an interval without width, [.667, .667]."""
    summary = json.loads((of_f1[0] / "shapes_test" / "summary.json").read_bytes())
    assert pytest.approx(2 / 3) == summary["metrics"]["vqa_accuracy"]
    assert ({}, {"vqa_accuracy": f"{REASON}: no interval"}) == (
        summary["intervals"],
        summary["no_interval"],
    )
    assert summary["metric_types"]["vqa_accuracy"]["mean"] is False
    lines = (of_f1[0] / "shapes_test" / "scores.jsonl").read_bytes().splitlines()
    assert all(json.loads(line).keys() == {"id", "image"} for line in lines)


def test_the_report_says_why_there_is_no_interval(of_f1, tmp_path):
    """Where the interval would stand there is none, in any form."""
    done = command("report", of_f1[0])
    assert done.returncode == 0
    assert f"{REASON}: no interval".replace(" ", "") in "".join(done.stdout.split())
    assert "66.67" in done.stdout
    file = tmp_path / "report.json"
    assert command("report", of_f1[0], "--format", "json", "--output", file).returncode == 0
    (cell,) = json.loads(file.read_bytes())["cells"]
    assert (None, None) == (cell["low"], cell["high"])
    assert f"{REASON}: no interval" in cell["remark"]


def test_the_gate_refuses_a_metric_that_is_not_a_mean(of_f1):
    """It is never a pass, and never the regression at p = 3e-151 that repeated scores make."""
    done = compare(*of_f1)
    assert (0, True) == (
        done.returncode,
        f"invalid: {REASON}: it cannot be compared" in done.stdout,
    )
    for option in ("error", "fail", "skip"):
        result, _ = gate(*of_f1, "--inconclusive", option)
        (benchmark,) = result["benchmarks"]
        assert (12, "invalid", None) == (
            result["exit_code"],
            benchmark["verdict"],
            benchmark["p_worse"],
        )
        assert benchmark["reason"].startswith(REASON)


def test_the_gate_refuses_it_beside_benchmarks_that_pass(of_f1, tmp_path):
    """One benchmark that nobody can test is no reason to let the whole pass."""
    runs = []
    for name, source in zip("ab", of_f1, strict=True):
        run = make_run(tmp_path / name, {"okvqa_val": rows_of([1.0] * 30)})
        shutil.copytree(source / "shapes_test", run / "shapes_test")
        manifest = json.loads((run / "manifest.json").read_bytes())
        manifest["tasks"]["shapes_test"] = manifest["tasks"]["okvqa_val"]
        (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        runs.append(run)
    result, _ = gate(*runs)
    assert {"shapes_test": "invalid", "okvqa_val": "pass"} == {
        each["task"]: each["verdict"] for each in result["benchmarks"]
    }
    assert result["exit_code"] == 12


def test_a_corpus_metric_that_declares_a_mean_is_tested(tmp_path):
    """As CIDEr is: its values are those of samples."""
    metric = Corpus(lambda texts, _: [float(text) for text in texts], mean=True)
    runs = [
        f1_run(tmp_path / name, values, metric)
        for name, values in (("a", HALF), ("b", [0.0] * 20 + HALF[20:]))
    ]
    result, _ = gate(*runs)
    assert result["verdict"] != "invalid"
    assert result["benchmarks"][0]["low"] is not None


def test_a_summary_of_before_that_may_be_such_a_metric_s_is_refused(tmp_path):
    """It does not say whether the metric is a mean, but that it was a Corpus: by its bootstrap."""
    metric = Corpus(lambda texts, _: f1(texts, ["1.0"] * len(texts)), mean=True)
    runs = [f1_run(tmp_path / name, HALF, metric) for name in "ab"]
    for run in runs:
        file = run / "shapes_test" / "summary.json"
        summary = json.loads(file.read_bytes())
        del summary["metric_types"], summary["no_interval"]
        ends = {"low": 2 / 3, "high": 2 / 3, "method": "bootstrap over images"}
        file.write_text(json.dumps(summary | {"intervals": {"vqa_accuracy": ends}}), "utf-8")
    result, _ = gate(*runs)
    assert "does not say whether vqa_accuracy is a mean" in result["benchmarks"][0]["reason"]
    assert result["exit_code"] == 12


def test_groups_have_a_score_only_where_it_is_computed_anew():
    """Up to ten values of a group; a share of a repeated score would be no score."""
    task = Task("shapes_test", 24, (), "", Generate(5), {"f1": Corpus(f1)})
    samples = [
        Sample(str(n), {"image": f"{n}.png"}, "1.0", groups={"few": "ab"[n % 2], "many": str(n)})
        for n in range(24)
    ]
    scoring = Scoring(task, {}, {})
    answers = [Prediction(str(n), repr(float(n % 4 > 0))) for n in range(24)]
    list(scoring.rows(samples, answers))
    by = scoring.summary()["by"]
    assert pytest.approx({"a": 2 / 3, "b": 1.0}) == {v: p["f1"] for v, p in by["few"].items()}
    assert all("f1" not in part for part in by["many"].values())


def test_pictures_and_pages_leave_the_metric_out(of_f1, tmp_path):
    """No flip of a sample is counted where samples have no values."""
    runs = []
    for name, source in zip("ab", of_f1, strict=True):
        rows = rows_of([1.0] * 30)
        run = make_run(tmp_path / name, {"okvqa_val": rows if name == "a" else lowered(rows, 3)})
        shutil.copytree(source / "shapes_test", run / "shapes_test")
        manifest = json.loads((run / "manifest.json").read_bytes())
        manifest["tasks"]["shapes_test"] = manifest["tasks"]["okvqa_val"]
        (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        runs.append(run)
    assert command("plot", *runs, "--out", tmp_path / "plots").returncode == 0
    flips = (tmp_path / "plots" / "flips.svg").read_text("utf-8")
    assert "okvqa_val" in flips
    assert "shapes_test" not in flips
    assert command("leaderboard", *runs, "--out", tmp_path / "site").returncode == 0


# Docs


def test_the_ci_example_needs_no_shell_around_the_gate(equal, monkeypatch, tmp_path):
    """EVALUATION.md's job is the command alone: its exit code and its JUnit XML are the job's."""
    (job,) = re.findall(r"(?s)```yaml\n(- name: gate.*?)```", PAGE.read_text("utf-8"))
    (line,) = re.findall(r"run: qwen-vl-eval (compare .*)", job)
    runs = {"/runs/main": equal[0], "runs/new": equal[1]}
    monkeypatch.chdir(tmp_path)
    assert command(*(runs.get(word, word) for word in line.split())).returncode == 0
    suite = ElementTree.parse("gate.xml").getroot()
    assert ("0", "0", "1") == tuple(suite.get(n) for n in ("errors", "failures", "skipped"))
