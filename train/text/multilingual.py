"""A small multilingual text teacher, from the data set's names and captions alone: no image is ever drawn for it.

    python -m train textteacher --out runs/words

For masked distillation and inherited words (train/objectives/sfclip.py) at the bundled data's size, where a language
model trained on the web would be out of proportion. A two-layer BERT learns that the names of one noun in all languages
of tipsv2.scenes (its English name, plural and keywords, and the translations) say the same, and so does a sentence with
the names of another language put into it: symmetric InfoNCE, once on the mean of the last layer's features and once on
the mean of the word embeddings, since those are what a student inherits. It is a dictionary of the names it was trained
with and claims nothing about other words.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase

from tipsv2 import scenes
from tipsv2.files import whole_folder
from tipsv2.scenes import captions
from tipsv2.scenes.sprites import Noun
from train.network.tokenizer import train_tokenizer
from train.objectives import losses
from train.objectives.schedules import warmup_cosine

VOCABULARY = 12_288  # an upper bound: enough that almost every word of a name is one token
TOKENIZER_CAPTIONS = 3000
TEMPERATURE = 0.1
NAMES, SENTENCES = 256, 48  # pairs per step
KINDS = ("web", "short", "detailed")  # of captions


def train_teacher(
    out: Path,
    steps: int = 200,
    seed: int = 0,
    nouns: Sequence[Noun] | None = None,
    width: int = 192,
    show: bool = True,
) -> dict[str, float]:
    """Train the teacher, write it to folder `out` as plain transformers (BertModel and tokenizer), return `scores`.

    nouns: what it knows, all of the data set's by default. width: of its embeddings and features, a multiple of 64.
    Raises ValueError if `out` holds something or there are no steps.
    """
    if steps < 1:
        raise ValueError(f"--steps {steps}: train at least one step.")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; choose another --out.")
    torch.manual_seed(seed)
    rng = random.Random(seed)
    nouns = scenes.nouns() if nouns is None else nouns
    names = [names_of(noun) for noun in nouns]
    texts = [text for group in names for text in group] * 3  # three times: the tokenizer leaves out what is rare
    texts += [sentence(rng.random(), nouns, kind) for _ in range(TOKENIZER_CAPTIONS // 3) for kind in KINDS]
    tokenizer = train_tokenizer(texts, VOCABULARY)
    foreign = {code: in_language(nouns, code) for code in nouns[0].translations}
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=2, num_attention_heads=width // 64,
            intermediate_size=2 * width, max_position_embeddings=64, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, pad_token_id=tokenizer.pad_token_id,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    for step in tqdm(range(steps), unit="step", disable=not show):
        pairs = [rng.sample(group, 2) for group in rng.sample(names, min(NAMES, len(names)))]
        sentences = []
        for _ in range(SENTENCES):
            said, kind = rng.random(), rng.choice(("short", "detailed"))
            sentences.append((sentence(said, nouns, kind), sentence(said, foreign[rng.choice([*foreign])], kind)))
        loss = sum(_agree(model, tokenizer, both) for both in (pairs, sentences))
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * warmup_cosine(step, steps, min(20, steps // 2), floor=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with whole_folder(out) as part:
        model.eval().save_pretrained(part)
        tokenizer.save_pretrained(part)
    return scores(model, tokenizer, nouns)


def names_of(noun: Noun) -> list[str]:
    """All names of one noun, each once: English name, plural, keywords, and the name in every other language."""
    return list(dict.fromkeys([noun.name, noun.plural, *noun.keywords, *noun.translations.values()]))


def in_language(nouns: Sequence[Noun], code: str) -> tuple[Noun, ...]:
    """The nouns with the names of one language, which here has no plurals and no keywords."""
    return tuple(replace(n, name=n.translations[code], plural=n.translations[code], keywords=()) for n in nouns)


def sentence(seed: float, nouns: Sequence[Noun], kind: str) -> str:
    """A caption of a made-up scene, as the captions of drawn ones are; of equal seeds only the nouns' names differ."""
    rng = random.Random(seed)
    grounds = rng.sample(sorted(captions.GROUND), rng.choice((1, 2)))
    objects = [
        captions.Object(
            noun=rng.randrange(len(nouns)), style="", center=(rng.random(), rng.random()),
            side=rng.uniform(0.2, 0.7), visible=1.0, ground=rng.choice(grounds),
        )
        for _ in range(rng.randint(1, 4))
    ]  # fmt: skip
    return getattr(captions, kind)(rng, nouns, objects, grounds)


@torch.no_grad()
def scores(model: BertModel, tokenizer: PreTrainedTokenizerBase, nouns: Sequence[Noun]) -> dict[str, float]:
    """How often a translation's nearest English name is its own noun's, over all nouns and languages.

    {"words": by the mean of the word embeddings, "features": by the mean of the last layer, "chance"}, in [0, 1]. All
    these names were trained with: it says that the dictionary was learned, not that new words would be understood.
    """
    english = embed(model, tokenizer, [noun.name for noun in nouns])
    hits = {"words": 0.0, "features": 0.0}
    languages = list(nouns[0].translations)
    for code in languages:
        foreign = embed(model, tokenizer, [noun.translations[code] for noun in nouns])
        for name in hits:
            nearest = (F.normalize(foreign[name], dim=-1) @ F.normalize(english[name], dim=-1).T).argmax(1)
            hits[name] += (nearest == torch.arange(len(nouns))).float().mean().item() / len(languages)
    return hits | {"chance": 1 / len(nouns)}


def embed(model: BertModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, Tensor]:
    """Texts as [B, W] in two ways: the mean of their word embeddings and of the last layer's features."""
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=64, return_tensors="pt")
    mask = tokens["attention_mask"][..., None]
    features = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    words = model.get_input_embeddings()(tokens["input_ids"])
    return {name: (x * mask).sum(1) / mask.sum(1) for name, x in (("words", words), ("features", features))}


def _agree(model: BertModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Sequence[str]]) -> Tensor:
    """InfoNCE between the first and the second texts of pairs, on features and on word embeddings."""
    out = embed(model, tokenizer, [text for column in zip(*pairs, strict=True) for text in column])
    halves = [x.chunk(2) for x in out.values()]
    return sum(losses.contrastive(first, second, TEMPERATURE) for first, second in halves)
