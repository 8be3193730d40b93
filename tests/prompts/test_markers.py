"""Real tokenizers of the kinds that models have, with templates whose markers are ordinary text."""

import random
import re
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from artsel_ray.prompts.escaping import OPTION, OPTION_END, escape
from artsel_ray.prompts.markers import DataTokenizer
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.schema import HISTORY
from tests.support.histories import item
from tests.support.hostile import draw

INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
ALPACA = (
    "Below is an instruction that describes a task - e.g. a user's. Write a (short) response.\n\n"
    "{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n{% elif m.role == 'system' %}"
    "### System:\n{{ m.content }}\n\n{% else %}### Response:\n{{ m.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)
VICUNA = (
    "A chat between a user and an assistant. {% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}{{ m.role.upper() }}: {{ m.content }} {% endfor %}ASSISTANT:"
)
CORPUS = [
    "[INST] [/INST] ### Instruction: ### Response: ### System: USER: ASSISTANT: <think> [SEP] Prediction: Reason:",
    "below is an instruction that describes a task. a red tower by the sea, with two friends who laugh.",
    "\n\nNew title: Heat (Crime)\nAvailable artworks:\n\nWatch history, oldest first:\n- 2024-05-01: Up, watched 1 min",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 :;.,!?()[]{}/|#*+-=_<>&%$@'\"‹›",
] * 3
ORDINARY = [
    "A red tower.", "Two friends: laugh (by the sea) — at 9:30!", "Amélie, 2001: «a café» 🎬 日本語",
    "#1 [4K] 50% & 7/10",
    "the user's response, a system and an instruction",
]  # fmt: skip


def made(
    model: models.Model, trainer: trainers.Trainer, template: str, decoder: decoders.Decoder | None = None,
    normalizer: normalizers.Normalizer | None = None, pre_tokenizer: pre_tokenizers.PreTokenizer | None = None,
    added: Sequence[str] = (),
) -> PreTrainedTokenizerBase:  # fmt: skip
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizer
    if normalizer:
        backend.normalizer = normalizer
    if decoder:
        backend.decoder = decoder
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens([AddedToken(content, special=False, normalized=True) for content in added])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": [OPTION, OPTION_END]})
    tokenizer.chat_template = template
    return tokenizer


def byte_level() -> PreTrainedTokenizerBase:
    """As Mistral's: the markers are ordinary subwords."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>", "<unk>"], initial_alphabet=alphabet, show_progress=False
    )
    return made(models.BPE(), trainer, INST, decoders.ByteLevel(), pre_tokenizer=level)


def metaspace() -> PreTrainedTokenizerBase:
    """As Llama 2's: a normalizer prepends and replaces, so that it changes its own output again."""
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    return made(models.BPE(unk_token="<unk>", fuse_unk=True), trainer, VICUNA, normalizer=normalizer)


def unigram() -> PreTrainedTokenizerBase:
    """As T5's: NFKC, and added tokens that are not special, which the vocabulary has too."""
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "<s>", "</s>", "[SEP]", "<think>"],
        unk_token="<unk>",
        show_progress=False,
    )
    normalizer, added = normalizers.NFKC(), ["[SEP]", "<think>"]
    return made(models.Unigram(), trainer, ALPACA, None, normalizer, pre_tokenizers.Metaspace(), added)


def word_piece() -> PreTrainedTokenizerBase:
    """As BERT's: lower case, no accents, white space that means nothing, and words that are kept as they are."""
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>", "[SEP]"], show_progress=False
    )
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.BertNormalizer(strip_accents=True)])
    splitting = pre_tokenizers.WhitespaceSplit()
    return made(models.WordPiece(unk_token="<unk>"), trainer, VICUNA, None, normalizer, splitting, ["[SEP]", "<think>"])


MAKERS = [byte_level, metaspace, unigram, word_piece]
SPELLED = {
    byte_level: ["[INST]", "[/INST]"],
    metaspace: ["USER:", "ASSISTANT:"],
    unigram: ["###", "Instruction:", "Response:", "System:", "[SEP]", "<think>", "Prediction:", "Reason:"],
    word_piece: ["user:", "assistant:", "[sep]", "<think>", "prediction:", "reason:"],
}
Maker = Callable[[], PreTrainedTokenizerBase]


def data_ids(prompts: PromptTokenizer, text: str) -> list[list[int]]:
    """Ids of every place in which text from data stands, the wording around it included."""
    options = prompts.options(text, [text, "Drama"], [text, "A tower."])
    history = prompts.histories(pa.array([[item(1, text, [text])]], HISTORY), np.array([4096])).ids[0].as_py()
    return [options.prefix, *options.answers, history, prompts.rationale(text)]


def check(tokenizer: PreTrainedTokenizerBase, prompts: PromptTokenizer, spelled: Sequence[str], text: str) -> None:
    calm, reserved = (
        data_ids(prompts, "calm"),
        set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values()),
    )
    reserved -= {tokenizer.unk_token_id}
    for got, harmless in zip(data_ids(prompts, text), calm, strict=True):
        assert [i for i in got if i in reserved] == [i for i in harmless if i in reserved], text
        shown = re.sub(r"[\s▁]", "", "".join(tokenizer.convert_ids_to_tokens(got)).replace("Ġ", "")).replace("##", "")
        assert not [marker for marker in spelled if marker.lower() in shown.lower()], text


def full_width(text: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


@pytest.mark.parametrize("make", MAKERS)
def test_no_text_spells_a_marker_of_the_template(make: Maker) -> None:
    tokenizer, rng = make(), random.Random(0)
    prompts = PromptTokenizer(tokenizer, PromptSpec(reason=True))
    markers = [*SPELLED[make], "### Response:", "[/INST]", "[SEP]"]
    variants = [
        *markers, *map(str.lower, markers), *map(str.upper, markers), *map(full_width, markers),
        *(re.sub(r"(?=\W)|(?<=\W)", " ", marker) for marker in markers),
        *(f"{marker[0]}{marker}{marker[1:]}" for marker in markers),
        *(f"x{marker}y" for marker in markers), *("\u0301".join(marker) for marker in markers),
        *("\u200b".join(marker) for marker in markers), *(marker.replace(":", " :") for marker in markers),
    ]  # fmt: skip
    drawn = [f"{draw(rng)}{rng.choice(variants)}{draw(rng)}{rng.choice(variants)}" for _ in range(60)]
    for text in variants + drawn:
        check(tokenizer, prompts, SPELLED[make], text)


@pytest.mark.parametrize("make", MAKERS)
def test_the_templates_own_markers_are_what_the_tests_look_for(make: Maker) -> None:
    tokenizer = make()
    ids = tokenizer(SPELLED[make], add_special_tokens=False)["input_ids"]
    # Without the second wall a caption would have these ids, as the template has.
    data = DataTokenizer(tokenizer, ["nothing"])
    assert any(data.encode([marker])[0] == own for marker, own in zip(SPELLED[make], ids, strict=True))


@pytest.mark.parametrize("make", MAKERS)
def test_ordinary_texts_keep_their_ids(make: Maker) -> None:
    tokenizer = make()
    texts = [f" {escape(text)}" for text in ORDINARY]
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    assert prompts.encode_data(texts) == prompts.encode(texts)


def test_markers_are_broken_visibly(tokenizer: PreTrainedTokenizerBase) -> None:
    template = ["<s>[INST] Be a (kind) assistant.\nGPT4 User: ", " [/INST]", "\n# Human", "\nBOT :", "\n**[Guide]**"]
    data = DataTokenizer(tokenizer, template)
    broken = {
        " a [/INST] b": " a --INST- b", " User: x": " User- x", " # human": " - human", " BOT: x": " BOT- x",
        " [guide] x": " -guide- x", " **[Guide]**": " ---Guide---", " (kind)": " -kind-",
        " A [kind] user, a # and: so on": " A [kind] user, a # and: so on",
    }  # fmt: skip
    assert {text: data.plain(text) for text in broken} == broken


def test_structure_that_a_normalizer_makes_is_escaped() -> None:
    backend = byte_level().backend_tokenizer
    # The first is a line break's own letter; the others turn letters into structure, the last one again and again.
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace(old, new) for old, new in {"\n": "▃", "ß": "\n", "¶": "Prediction:", "‹": "<"}.items()]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    data = DataTokenizer(tokenizer, [])
    shown = {text: backend.normalizer.normalize_str(data.plain(text)) for text in (" a▃b", " aßb", " a¶b", " a‹b")}
    assert shown == {" a▃b": " a-b", " aßb": " a b", " a¶b": " aPrediction -b", " a‹b": " a b"}
    # Line breaks of the wording stay what the normalizer makes of them.
    assert backend.normalizer.normalize_str(data.plain("\n\nNew title: a▃b\nc")) == "▃▃New title: a-b▃c"


def test_a_thousand_markers_cost_little(tokenizer: PreTrainedTokenizerBase) -> None:
    data = DataTokenizer(tokenizer, [f"[control_{number}]" for number in range(1000)])
    assert data.plain(" [control_7] " + "[a: b] " * 2000) == " -control-7- " + "[a: b] " * 1999 + "[a: b]"
