"""Tiny teachers of one modality, and a run that learns from them: for test_teachers.py and test_sfclip.py."""

import json
import shutil

import torch
import transformers
from conftest import make_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from train.network.inherited_words import inherit
from train.network.teachers import open_teachers
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.recipe import recipes
from train.recipe.overrides import override

MEAN, DEVIATION = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
TINY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
VISION = {  # class, configuration: what a ViT may have before and after its patches
    "dinov2": ("Dinov2", {"patch_size": 14, "image_size": 28}),
    "registers": ("Dinov2WithRegisters", {"patch_size": 14, "image_size": 28, "num_register_tokens": 3}),
    "vit": ("ViT", {"patch_size": 8, "image_size": 32}),
    "siglip": ("SiglipVision", {"patch_size": 16, "image_size": 32}),
}
CAPTIONS = ["a dog on the grass, under the sky", "two cats in the snow", "a red car at the left"] * 20
SMOKE = ["precision=fp32", "sample_every=1000", "save_every=1000", "stages.0.steps=6", "stages.1.steps=2", "trackers="]
PLAIN = [f"stages.{k}.{name}=0" for k in (0, 1) for name in ("patch_weight", "local_crops", "mask_ratio")]


def randomise(model):
    """Weights large enough that every token's features differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def word_tokenizer():
    """Another kind of tokenizer than ours: whole words, [CLS] and [SEP] around a text, padding is 3 and on the left."""
    known = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *sorted({w for t in CAPTIONS for w in t.replace(",", "").split()})]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*known, ",", "hund"])}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    around = [("[CLS]", 1), ("[SEP]", 2)]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=None, special_tokens=around)
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", **names)


def in_the_packages_names(lite):
    """The state of an EfficientNetLite in the names of efficientnet_pytorch, written out by hand."""
    wide = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1", "bn3": "_bn2"}
    narrow = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    blocks = [f"blocks.{s}.{k}" for s, stage in enumerate(lite.blocks) for k in range(len(stage))]
    state = {}
    for key, value in lite.state_dict().items():
        first, *rest = key.split(".")
        if first == "blocks":
            number = blocks.index(f"blocks.{rest[0]}.{rest[1]}")
            names = (wide | {"conv_pwl": "_project_conv"}) if number else narrow
            state[f"_blocks.{number}.{names[rest[2]]}.{rest[3]}"] = value
        else:
            state[f"{outside[first]}.{rest[0]}"] = value
    return state


def save(top, tiny_folder):
    """Teachers as `save_pretrained` writes them, by name, in folder `top`; `tiny_folder` is a TIPSv2 encoder."""
    settings_of_pixels = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    settings_of_pixels |= {"image_mean": MEAN, "image_std": DEVIATION, "image_processor_type": "ViTImageProcessor"}
    torch.manual_seed(5)
    for name, (kind, sizes) in VISION.items():
        config = getattr(transformers, f"{kind}Config")(**TINY, **sizes)
        randomise(getattr(transformers, f"{kind}Model")(config)).save_pretrained(top / name)
        doubled = {"rescale_factor": 2 / 255} if name == "vit" else {}
        (top / name / "preprocessor_config.json").write_text(json.dumps(settings_of_pixels | doubled))
    tokenizer = make_tokenizer()
    bert = BertConfig(vocab_size=len(tokenizer) + 3, max_position_embeddings=64, **TINY)
    randomise(BertModel(bert)).save_pretrained(top / "bert")
    tokenizer.save_pretrained(top / "bert")
    tokenizer = word_tokenizer()
    bert = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=3, **TINY)
    randomise(BertModel(bert)).save_pretrained(top / "words")
    tokenizer.save_pretrained(top / "words")
    decoder = transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=24, n_layer=1, n_head=2, n_positions=64)
    randomise(transformers.GPT2Model(decoder)).save_pretrained(top / "gpt")
    tokenizer.save_pretrained(top / "gpt")
    shutil.copytree(tiny_folder, top / "tipsv2")  # other tests share it as it is
    (top / "tipsv2" / "preprocessor_config.json").write_text(json.dumps(settings_of_pixels | {"do_normalize": False}))
    return {path.name: path for path in top.iterdir()}


def setting(folders, *fields, words="teacher"):
    """Recipe, objective, tokenizer and teachers of a smoke-sized run, as train.run.start puts them together."""
    given = [f"sfclip.vision_teacher={folders['dinov2']}", f"sfclip.text_teacher={folders['words']}"]
    weights = ["sfclip.vision_weight=1", "sfclip.text_weight=1", "sfclip.share=0.5", f"sfclip.words={words}"]
    recipe = override(recipes.get("smoke"), [*SMOKE, *PLAIN, *given, *weights, *fields])
    torch.manual_seed(recipe.seed)
    teachers = open_teachers(recipe.sfclip)
    if words == "teacher":
        tokenizer, vocabulary = teachers.text.tokenizer, len(teachers.text.matrix)
    else:
        tokenizer, vocabulary = train_tokenizer(CAPTIONS, 400), 400
    model = build(recipe, vocabulary)
    if words != "own":
        inherit(model, recipe, tokenizer, teachers.text)
    return recipe, Objective(recipe, model, None, teachers), tokenizer, teachers
