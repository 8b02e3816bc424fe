"""CIDEr-D of tokenised captions, over arrays: that takes a fraction of pycocoevalcap's time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eval.errors import DataError

SIGMA = 6.0  # of the penalty on a difference in length


def cider_of_tokens(
    predictions: Sequence[str], references: Sequence[Sequence[str]], longest: int
) -> list[float]:
    """What cider says of captions that are tokenised: words between white space.

    An n-gram's weight in a text is its count there times log(images / images whose references have
    it). For n = 1 to `longest`, the similarity to a reference is the cosine of the weights, of
    which the caption's are cut to the reference's, times exp(-d^2 / 72), d being the difference of
    the counts of bigrams. A value is ten times the mean over n and over the references.
    """
    images = len(predictions)
    texts = [*predictions, *(text for captions in references for text in captions)]
    per_image = np.array([len(captions) for captions in references])
    image_of = np.concatenate([np.arange(images), np.repeat(np.arange(images), per_image)])
    words, text_of = _words(texts)
    if not (text_of >= images).any():
        raise DataError(f"references of {images} images: none of them holds a word")
    bigrams = np.maximum(np.bincount(text_of, minlength=len(texts)) - 1, 0)
    difference = bigrams[image_of[images:]] - bigrams[images:]
    similarity = np.zeros(len(texts) - images)
    grams = np.zeros_like(words)
    for n in range(1, longest + 1):
        grams, here = _longer(grams, words, text_of, n)
        similarity += _cosines(grams[here], text_of[here], image_of, images)
    similarity *= np.exp(-(difference**2) / (2 * SIGMA**2)) / longest
    total = np.bincount(image_of[images:], weights=similarity, minlength=images)
    return [float(value) for value in 10 * total / per_image]


def _words(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All words of all texts in a row, as numbers, and for each the text that it stands in."""
    numbers: dict[str, int] = {}
    split = [text.split() for text in texts]
    words = [numbers.setdefault(word, len(numbers)) for text in split for word in text]
    lengths = [len(text) for text in split]
    return np.array(words, dtype=np.int64), np.repeat(np.arange(len(texts)), lengths)


def _longer(
    grams: NDArray[np.int64], words: NDArray[np.int64], text_of: NDArray[np.int64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """N-grams of n words, as numbers, from those of n - 1 that begin at each word.

    Beside them the places where one begins: the others run over the end of their text.
    """
    last = np.arange(n - 1, len(words))
    here = last[text_of[last] == text_of[last - n + 1]] - n + 1
    longer = np.zeros_like(grams)
    pairs = grams[here] * (words.max(initial=0) + 1) + words[here + n - 1]
    longer[here] = np.unique(pairs, return_inverse=True)[1]
    return longer, here


def _cosines(
    grams: NDArray[np.int64], text_of: NDArray[np.int64], image_of: NDArray[np.int64], images: int
) -> NDArray[np.float64]:
    """Similarity of each reference to the caption of its image, for n-grams of one length.

    grams, text_of  of each n-gram in the texts: its number, and its text, the captions first
    image_of        of each text, its image
    """
    kinds = int(grams.max(initial=0)) + 1
    rows, counts = np.unique(text_of * kinds + grams, return_counts=True)
    text, gram = np.divmod(rows, kinds)
    true = text >= images
    seen = np.unique(image_of[text[true]] * kinds + gram[true]) % kinds
    frequency = np.maximum(np.bincount(seen, minlength=kinds), 1)
    weight = counts * (np.log(float(images)) - np.log(frequency))[gram]
    norm = np.sqrt(np.bincount(text, weights=weight**2, minlength=len(image_of)))
    # Captions come first and text numbers are theirs of images: rows[~true] are sorted keys.
    known, given = rows[~true], weight[~true]
    keys = image_of[text[true]] * kinds + gram[true]
    place = np.minimum(np.searchsorted(known, keys), max(len(known) - 1, 0))
    both = known[place] == keys if len(known) else np.zeros(len(keys), dtype=bool)
    shared = np.zeros(len(keys))
    shared[both] = np.minimum(given[place[both]], weight[true][both]) * weight[true][both]
    product = np.bincount(text[true], weights=shared, minlength=len(image_of))[images:]
    norms = norm[images:] * norm[image_of[images:]]
    cosines = np.zeros(len(product))  # bincount of no n-gram at all would be of integers
    np.divide(product, norms, out=cosines, where=norms != 0)
    return cosines
