"""`python -m train check` and `caption`: numbers against hand counts, and captions by a real, tiny, untrained model."""

import errno
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import photos
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from tipsv2.collections.pairs import open_pairs
from train.__main__ import main
from train.recipe.settings import Data
from train.tools.caption import load_captioner
from train.tools.check import look_through

WORDS = "a an the on under red green blue cat dog grass sky describe this image in detail one short sentence of".split()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def table(tmp_path):
    """Ten rows: two repeat a caption, one has no caption, one an empty file, sizes differ."""
    (tmp_path / "im").mkdir()
    rows = []
    for i in range(10):
        photos.picture(i, (40 + 10 * i, 300)).save(tmp_path / "im" / f"{i}.png")
        rows.append({"file": f"im/{i}.png", "alt": " ".join(["word"] * (i + 1)), "long_caption": f"$ {i} in full"})
    rows[3]["alt"] = rows[2]["alt"]
    rows[4] |= {"alt": "", "long_caption": None}
    rows[9]["alt"] = None
    (tmp_path / "im" / "7.png").write_bytes(b"")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "t.jsonl"


def test_the_report_counts_what_is_there(table):
    report = look_through(Data(source=str(table)), show=False)
    assert report.rows == 10 and len(report.sizes) == 8
    web, detailed = report.captions["web"], report.captions["detailed"]
    assert sorted(web.words) == [1, 2, 3, 3, 6, 7, 8, 9] and web.duplicates == 1 and web.empty == 2
    assert len(detailed.words) == 9 and detailed.duplicates == 0 and detailed.empty == 1
    text = str(report)
    assert "t.jsonl: 10 rows, 8 usable pairs" in text and "columns: file, alt, long_caption" in text
    assert "read as: image from file, web from alt, detailed from long_caption" in text
    assert "8 captions, words: mean 4.9, 5 % 1, median 4, 95 % 9, longest 9; 12.5% repeat an earlier one" in text
    assert (
        "smallest sides 40 x 300, median 80 x 300, largest 130 x 300" in text and "100.0% have a side below 224" in text
    )
    assert "unusable: 2\n  im/4.png: it has no caption.\n  im/7.png: it is empty (0 bytes)" in text
    assert "short: none" in text and "2 of 10 rows cannot be used" in report.refusal
    assert look_through(Data(source=str(table)), limit=4, show=False).refusal == ""


def test_the_command_draws_six_pairs_and_says_when_data_is_no_use(table, tmp_path, capsys):
    out = tmp_path / "six.png"
    check = ["check", str(table), "--out", str(out)]
    assert main([*check, "data.unreadable=0.3"]) == 0
    assert "read as" in capsys.readouterr().out and Image.open(out).size == (1200, 900)
    assert len(Image.open(out).convert("RGB").getcolors(2**24)) > 50
    assert main(check) == 2
    captured = capsys.readouterr()
    assert "unusable: 2" in captured.out and captured.err.splitlines()[-1].endswith("mend or remove them.")
    assert main([*check, "data.web=long_caption", "data.unreadable=0.3"]) == 0
    assert "web from long_caption" in capsys.readouterr().out
    one = photos.shards(tmp_path / "one", 1)
    assert main(["check", str(one), "--out", str(out)]) == 2
    assert "one usable pair only" in capsys.readouterr().err
    for data, hint in ((tmp_path / "none", "no file or folder"), (tmp_path / "im", "images but no captions")):
        assert main(["check", str(data), "--out", str(out)]) == 2
        assert hint in capsys.readouterr().err.splitlines()[-1]


def test_numbers_that_call_for_it_are_followed_by_advice(tmp_path, monkeypatch, capsys):
    """Of 12 captions 3 repeat one, a quarter; few pairs are few unless a limit hides how many there are."""
    path = photos.folder(tmp_path / "x", 12)
    report = look_through(Data(source=str(path)), show=False)
    (few,) = report.advice
    assert few.startswith("12 pairs are few: fine-tune") and f"advice: {few}" in str(report).splitlines()
    for i in range(3):
        (path / f"{i:03}.txt").write_text("picture number 11")
    repeated, few = look_through(Data(source=str(path)), show=False).advice
    assert repeated.startswith("25% of the web captions repeat an earlier one") and "not told apart" in repeated
    (path / "000.txt").write_text("another")
    (path / "001.txt").write_text("yet another")  # 1 of 12 is no large share
    assert len(look_through(Data(source=str(path)), show=False).advice) == 1
    assert look_through(Data(source=str(path)), limit=5, show=False).advice == []
    assert len(look_through(Data(source=str(path)), limit=12, show=False).advice) == 1
    monkeypatch.setattr("train.tools.check.FEW", 12)
    assert look_through(Data(source=str(path)), show=False).advice == []

    monkeypatch.chdir(tmp_path)
    assert main(["check", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""  # no bar in what is not a terminal
    assert "drawn" not in captured.out and not (tmp_path / "sample.png").exists()  # nothing that was not asked for
    assert main(["check", str(path), "--out", "sample.png"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"6 of them are drawn in {tmp_path / 'sample.png'}"


def test_repeated_images_and_lost_letters_are_said(tmp_path):
    path = photos.folder(tmp_path / "x", 4)
    (path / "003.png").write_bytes(photos.encoded(1))
    (path / "002.txt").write_text("a caf\ufffd in Z\ufffdrich")
    report = look_through(Data(source=str(path)), show=False)
    lost, repeated, _ = report.advice
    assert lost.startswith("1 of the web captions hold the character \ufffd") and "write these captions anew" in lost
    assert repeated.startswith("1 images repeat the file of an earlier one (003.png)")


def test_a_truncated_jpeg_is_called_so(tmp_path):
    path = photos.folder(tmp_path / "x", 3)
    whole = photos.encoded(0, "JPEG")
    for i, end in ((1, 30), (2, len(whole) // 2)):  # within the header, and behind it
        (path / f"{i:03}.png").unlink()
        (path / f"{i:03}.jpg").write_bytes(whole[:end])
    problems = look_through(Data(source=str(path)), show=False).problems
    assert [problem.split(" and ")[0] for problem in problems] == [
        f"{i:03}.jpg: it is truncated or damaged" for i in (1, 2)
    ]


def test_a_tar_of_png_and_jpg_is_usable_whole(tmp_path):
    def some_as_jpg(i, files):
        return {"jpg" if i % 2 else "png": photos.encoded(i, "JPEG" if i % 2 else "PNG"), "txt": files["txt"]}

    report = look_through(Data(source=str(photos.tar(tmp_path / "x.tar", range(4), some_as_jpg))), show=False)
    text = str(report)
    assert "4 rows, 4 usable pairs" in text and "read as: image from png or jpg, web from txt" in text


def word_tokenizer(*special):
    """A word a token."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", "</s>", "[CLS]", "[SEP]", *special, *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", cls_token="[CLS]",
        sep_token="[SEP]", additional_special_tokens=list(special),
    )  # fmt: skip


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A LLaVA of a few thousand random parameters, with a chat template."""
    folder, tokenizer = tmp_path_factory.mktemp("llava"), word_tokenizer("<image>")
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}), tokenizer, patch_size=14,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template="{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] | lower }} {% endif %}{% endfor %}{% endfor %}",
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                         image_size=28, patch_size=14, projection_dim=16),
        text_config=LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                    num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, bos_token_id=3, eos_token_id=2,
                    initializer_range=0.5),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    model.generation_config.suppress_tokens = list(range(6))  # words only: every caption has some
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    """A BLIP of the same kind: no chat template, a decoder that takes a plain prompt."""
    folder = tmp_path_factory.mktemp("blip")
    from transformers import BertTokenizer

    words = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS])}
    tokenizer = BertTokenizer(vocab=words)
    torch.manual_seed(0)
    text = dict(vocab_size=len(words), hidden_size=32, encoder_hidden_size=32, intermediate_size=32, projection_dim=16,
                num_hidden_layers=1, num_attention_heads=2, bos_token_id=5, sep_token_id=3, eos_token_id=3,
                pad_token_id=0, initializer_range=0.5)  # fmt: skip
    vision = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28,
                  patch_size=14)  # fmt: skip
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.generation_config.suppress_tokens = list(range(6))
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 28, "width": 28}), tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["llava", "blip"])
def test_a_batch_is_captioned_as_its_images_are_alone(kind, request):
    captioner = load_captioner(str(request.getfixturevalue(kind)))
    images = [photos.picture(i * 9) for i in range(3)]
    together = captioner.write(images, "describe this image", 6)
    assert together == [captioner.write([image], "describe this image", 6)[0] for image in images]
    assert all(set(text.split()) <= set(WORDS) and len(text.split()) in range(1, 7) for text in together)


def test_captions_are_added_kept_and_taken_up_again(tmp_path, llava, capsys):
    """Images alone become data; a killed command goes on; roles that are there stay; damaged images are left out."""
    path = photos.folder(tmp_path / "x", 7)
    for i in (1, 2, 3, 4, 5, 6):
        (path / f"{i:03}.txt").unlink()
    (path / "002.png").write_bytes(b"")
    (path / "005.json").write_text('{"short": "a dog", "web": ["b", "c\\u2028d"]}')  # that ends no line of JSONL
    out = tmp_path / "out" / "all.jsonl"
    command = ["caption", str(path), "--model", str(llava), "--out", str(out), "--batch-size", "2", "--max-tokens", "5"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "6 lines added" in captured.out and "1 images left out" in captured.out and "002.png" in captured.err
    whole = out.read_bytes()
    pairs = list(open_pairs(out))
    assert [photos.number_of(pair.open()) for pair in pairs] == [0, 1, 3, 4, 5, 6]
    assert pairs[0].captions["web"] == ("picture number 0",) and pairs[4].captions["web"] == ("b", "c\u2028d")
    assert pairs[4].captions["short"] == ("a dog",) and all(pair.captions["detailed"][0] for pair in pairs)
    assert set(pairs[1].captions) == {"short", "detailed"}

    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:3]) + lines[3][:20])  # as after a kill
    assert main(command) == 0 and out.read_bytes() == whole
    assert "3 lines added" in capsys.readouterr().out
    assert main(command) == 0 and "0 lines added" in capsys.readouterr().out and out.read_bytes() == whole


def test_images_of_tars_are_put_beside_the_table(tmp_path, llava):
    shards = photos.shards(tmp_path / "x", 2, 2)
    out = tmp_path / "out.jsonl"
    assert main(["caption", str(shards), "--model", str(llava), "--out", str(out), "--short", "a dog"]) == 0
    assert json.loads(out.read_text().splitlines()[0])["key"] == "000000000.png in 00000.tar"
    shutil.rmtree(shards)
    assert [(photos.number_of(p.open()), p.captions["web"]) for p in open_pairs(out)] == [
        (i, (f"picture number {i}",)) for i in range(4)
    ]
    images = tmp_path / "out-images"
    assert len(list(images.glob("*.png"))) == 4 and all(Image.open(path).size for path in images.iterdir())


def test_an_image_that_did_not_fit_on_the_disk_is_not_taken_for_one(tmp_path, llava, capsys, monkeypatch):
    shards = photos.shards(tmp_path / "x", 1, 1)
    command = ["caption", str(shards), "--model", str(llava), "--out", str(tmp_path / "out.jsonl"), "--short", "a dog"]
    write = Path.write_bytes

    def full_disk(path, data):
        write(path, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_disk)
        assert main(command) == 2
    assert "could not be written (No space left on device)" in capsys.readouterr().err
    assert not list(tmp_path.glob("out-images/*"))
    assert main(command) == 0
    assert [photos.number_of(pair.open()) for pair in open_pairs(tmp_path / "out.jsonl")] == [0, 1]


def test_what_cannot_caption_is_said_in_a_sentence(tmp_path, llava, tiny_folder, capsys):
    path = photos.folder(tmp_path / "x", 2)
    for arguments, hint in (
        (["--model", str(tmp_path / "none"), "--out", str(tmp_path / "a.jsonl")], "cannot be loaded"),
        (["--model", str(tiny_folder), "--out", str(tmp_path / "a.jsonl")], "image-text-to-text model"),
        (["--model", str(llava), "--out", str(tmp_path / "a.csv")], "end in .jsonl"),
        (["--model", str(llava), "--out", str(tmp_path / "a.jsonl"), "--batch-size", "0"], "at least 1"),
        (["--model", str(llava), "--out", str(tmp_path / "used.jsonl")], "not written by this command"),
    ):
        (tmp_path / "used.jsonl").write_text('{"image": "x"}\n')
        assert main(["caption", str(path), *arguments]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert hint in error, error


def test_masks_that_patch_labels_cannot_learn_from_are_named(tmp_path):
    """Of images whose labels have names; the pairs themselves stay usable."""
    path = photos.folder(tmp_path / "x", 4)
    for i in range(4):
        Image.fromarray(np.full(Image.open(path / f"{i:03}.png").size[::-1], i, np.uint8)).save(
            path / f"{i:03}.mask.png"
        )
    (path / "names.json").write_text('["sky", "grass", "dog"]')
    (path / "001.mask.png").write_bytes(b"no picture")
    report = look_through(Data(source=str(path)), show=False)
    assert report.refusal == "" and len(report.sizes) == 4
    lines = str(report).splitlines()
    at = lines.index("unusable as patch labels: 2")
    assert (
        "001.png: its mask cannot be read" in lines[at + 1]
        and "numbers up to 3, but there are 3 names" in lines[at + 2]
    )
    (path / "names.json").unlink()
    assert "patch labels" not in str(look_through(Data(source=str(path)), show=False))


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("\nSiglipImageProcessor requires the Torchvision library but it was not found.", "requirements-caption.txt"),
        ("Package `num2words` is required to run SmolVLM processor.", "requirements-caption.txt"),
        ("QwenProcessor requires the qwen_tools library. Install it.", "requires the qwen_tools library"),
    ],
)
def test_a_processor_that_wants_more_packages_names_them(monkeypatch, llava, said, hint):
    def wants(*given, **rest):
        raise ImportError(said)

    monkeypatch.setattr("train.tools.caption.AutoProcessor.from_pretrained", wants)
    with pytest.raises(ValueError, match=rf"^--model .* needs .*, not installed here: .*{hint}") as error:
        load_captioner(str(llava))
    assert "\n" not in str(error.value)
