"""Words in their sentence, the words nearest to a patch, and the vocabulary to choose them from.

Sizes: N words, h x w patches, H x W pixels, D embedding width.

    from tipsv2 import load
    from tipsv2.analysis.words import word_maps
    words, maps = word_maps(load(), "dog.jpg", "a brown dog asleep on green grass")   # 5 words, maps [5, H, W]
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from tipsv2.analysis.heatmap import layer_and_kind, maps, similarity
from tipsv2.checkpoints.bundled import DRAWINGS
from tipsv2.network.view import View

if TYPE_CHECKING:
    import numpy as np

# English words that say how others belong together: articles, pronouns, prepositions, conjunctions, auxiliaries.
FUNCTION_WORDS = frozenset(
    "a an the this that these those it its he him his she her hers they them their we us our you your i me my one some "
    "any each every all both no here not there who whom whose which what when where while and or but nor so yet if "
    "than then as of in on at by to from for with without within into onto over under above below between among behind "
    "beside besides near next before after against across through during along around about up down out off is are was "
    "were be been being am do does did has have had having can could will would shall should may might must very too "
    "also just only very s t".split()
)

COLOURS = "red orange yellow green blue purple pink brown black white gray".split()


def vocabulary(knows: Collection[str]) -> list[str]:
    """The words to tell patches in, for an encoder which knows these kinds of pictures (`ModelInfo.knows`): the names
    of the drawn scenes, of the benchmarks' photographs, or both; of photographs where nobody has said.
    """
    from tipsv2.prompts import CLASS_LISTS
    from tipsv2.scenes import names

    photographed = [name for listed in CLASS_LISTS.values() for name in listed] if {*knows} != {DRAWINGS} else []
    drawn = names() if DRAWINGS in knows else []
    return list(dict.fromkeys([*photographed, *drawn, *COLOURS]))


def content_words(sentence: str) -> list[str]:
    """The words of a sentence that name something, as they are written, each once (whatever its case), in order.

    Words are runs of letters and digits, with apostrophes and hyphens inside; FUNCTION_WORDS are left out unless the
    sentence holds nothing else. Where a script writes no spaces, a whole run is one word.
    """
    first: dict[str, str] = {}
    for word in _WORD.findall(sentence):
        first.setdefault(word.lower(), word)
    words = list(first.values())
    return [word for word in words if word.lower() not in FUNCTION_WORDS] or words


def phrases(sentence: str) -> list[str]:
    """The runs of its content words, each once (whatever its case), in order: what a sentence names, as it names it.

    A word of FUNCTION_WORDS or a sign ends a run: "a brown dog, asleep on green grass" has "brown dog", "asleep" and
    "green grass".
    """
    naming = {word.lower() for word in content_words(sentence)}
    runs: list[tuple[int, int]] = []  # start and end in the sentence
    for found in _WORD.finditer(sentence):
        if found[0].lower() in naming:
            start, end = runs[-1] if runs else (0, 0)
            if runs and sentence[end : found.start()].isspace():
                runs[-1] = (start, found.end())
            else:
                runs.append(found.span())
    first: dict[str, str] = {}
    for start, end in runs:
        phrase = " ".join(sentence[start:end].split())
        first.setdefault(phrase.lower(), phrase)
    return list(first.values())


def words_in_context(encoder, sentence: str) -> tuple[list[str], torch.Tensor]:
    """What each content word adds to its sentence -> (N words, [N, D] float32 unit rows).

    A word is embedded as the difference between the sentence and the sentence without it (every place it stands); a
    sentence of one word is that word. Of the ways tried on 120 scenes of the bundled encoder's validation split, with
    their detailed captions and value features, this one lights surfaces best and things nearly as well as the bare word
    (AUROC of the map against the word's pixels and share of maps whose peak is on them, 166 surfaces and 251 things):

        the difference             0.975  0.98      0.972  0.95
        the word alone             0.919  0.75      0.980  0.96
        the word in tips9          0.907  0.65      0.980  0.96
        its tokens' last features  0.862  0.72      0.975  0.92

    Raises ValueError if the sentence holds no word.
    """
    words = content_words(sentence)
    if not words:
        raise ValueError("The sentence has no words: write what the image shows, such as 'a dog on green grass'.")
    rests = [_without(sentence, word) for word in words]
    left = [rest if _WORD.search(rest) else None for rest in rests]
    texts = list(dict.fromkeys([sentence, *(rest for rest in left if rest), *words]))
    known = dict(zip(texts, encoder.encode_text(texts), strict=True))
    rows = [
        known[word] if rest is None else known[sentence] - known[rest] for word, rest in zip(words, left, strict=True)
    ]
    return words, F.normalize(torch.stack(rows), dim=-1)


def word_maps(
    encoder,
    image,
    sentence: str,
    mode: str = "cosine",
    features: str | int = "values",
    resolution: int | None = None,
    temperature: float = 0.05,
) -> tuple[list[str], np.ndarray]:
    """Where in the image is each word of a sentence? -> (N words, maps [N, H, W] float32).

    Words as in `words_in_context`; the rest as in `tipsv2.analysis.heatmap.heatmap`.
    """
    words, text = words_in_context(encoder, sentence)
    layer, kind = layer_and_kind(features)
    seen = encoder.look(image, View(resolution), layer)
    return words, maps(seen, text, kind, temperature if mode == "competing" else None).numpy()


def nearest_words(patch: torch.Tensor, encoder, vocabulary: Sequence[str], count: int = 8) -> list[tuple[str, float]]:
    """The words whose embeddings are nearest to a patch [D] -> up to `count` of (word, cosine), the nearest first.

    vocabulary: phrases, embedded as they are: prompt templates would cost eighty times as much for as good a ranking.
    """
    if not len(vocabulary):
        raise ValueError("Give at least one word to choose from.")
    cosines = similarity(patch[None, None], encoder.encode_text(vocabulary))[:, 0, 0]
    best = cosines.topk(min(count, len(vocabulary)))
    return [
        (vocabulary[index], value) for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _without(sentence: str, word: str) -> str:
    """The sentence less a word that `content_words` found in it, whatever sign stands next to it."""
    return " ".join(_WORD.sub(lambda found: " " if found[0].lower() == word.lower() else found[0], sentence).split())


_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
