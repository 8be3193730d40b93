"""Adds `<option>` and `</option>` to a model: to its tokenizer, and a row for each to its embeddings."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artsel_ray.errors import InputError, one_line
from artsel_ray.models import files
from artsel_ray.models.checks import refuse_quantized
from artsel_ray.models.files import is_multimodal
from artsel_ray.prompts import text as render
from artsel_ray.prompts.escaping import OPTION, OPTION_END

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What a model is asked before and after the tokens are added, and the largest relative difference of its logits.
_TEXT, _TOLERANCE = render.instruction("artwork"), 0.01
# Texts that tokenizers split in different ways: wording of prompts, and what names and captions hold.
_PROBES = (
    render.instruction("artwork"), render.HISTORY_HEAD, render.HISTORY_EMPTY, render.PREDICTION, render.REASON, "\n",
    "\n\n", "\n- 2024-03-01:", ", watched 96 min", " Heat (Action, Crime)", " 1", "1", " Amélie", " Ame\u0301lie",
    " 七人の侍", "  two  spaces ", "it's Don't WE'LL", " 12345,678.90", " a\tb", " 🎬 film", " naïve—“quoted”…", "▁bar",
)  # fmt: skip


def has_options(folder: Path) -> bool:
    """Tells whether a model's tokenizer has both tokens."""
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        return False
    added = {token["content"] for token in files.read_object(tokenizer).get("added_tokens") or []}
    return {OPTION, OPTION_END} <= added


def add_options(source: Path, to: Path) -> None:
    """Writes a model with the tokens into another folder. It computes the same for the tokens that it had.

    Raises:
        InputError: if the model or its tokenizer cannot be read, its weights are quantized, or what was written answers
            differently.
    """
    from artsel_ray.models import weights

    refuse_quantized(source, str(source), f"adding {OPTION} and {OPTION_END}")
    tokenizer, processor = _read(source)
    model: Any = weights.read_model(source, "auto")
    rows, head_rows = (len(side.weight) for side in (model.get_input_embeddings(), model.get_output_embeddings()))
    if head_rows != rows:  # as Llama 3.2 Vision, which cannot be made larger
        raise InputError(
            f"{source}: its embeddings have {rows:,} rows and its output layer {head_rows:,}, so that {OPTION} and "
            f"{OPTION_END} cannot be added; take another model"
        )
    own = min(len(tokenizer), rows)
    ids = [each for each in tokenizer(_TEXT, add_special_tokens=False)["input_ids"] if each < own] or [*range(16)]
    before = _logits(model, ids, own)
    save_with_options(model, tokenizer, to)
    del model  # two would be in memory
    if processor:
        processor.save_pretrained(to)
    after = _logits(weights.read_model(to, "auto"), ids, own)
    _check_same(before, after, source)


def _logits(model: Any, ids: list[int], tokens: int) -> Any:
    """Returns the logits of the first so many tokens after each of some ids, [ids, tokens], or None if there are none:
    some models compute on GPUs only.
    """
    import torch

    try:
        with torch.no_grad():
            return model.eval()(input_ids=torch.tensor([ids])).logits[0, :, :tokens].float()
    except Exception:  # noqa: BLE001  # each family of models fails in its own way
        return None


def _check_same(before: Any, after: Any, source: Path) -> None:
    """Raises an InputError unless logits are the same, but for the rounding of a half format."""
    if before is None:
        print(f"warning: {source} computes nothing here, so that its answers with {OPTION} and {OPTION_END} added "
              "could not be compared with those before", file=sys.stderr, flush=True)  # fmt: skip
        return
    # A model that answers with NaN is refused when it is asked, with another message.
    if before.isfinite().all() and (
        after is None or not (after - before).abs().max() <= _TOLERANCE * before.abs().max()
    ):
        raise InputError(
            f"{source}: with {OPTION} and {OPTION_END} added, the model answers differently from before; its "
            "config.json and its weights do not fit together: take another model"
        )


def add_to_tokenizer(source: Path, to: Path) -> None:
    """Writes a model's tokenizer, or processor, with the tokens into another folder: the same that a model gets."""
    tokenizer, processor = _read(source)
    _add_tokens(tokenizer)
    (processor or tokenizer).save_pretrained(to)
    for name in ("config.json", "generation_config.json"):  # an end token may be named there alone
        if (source / name).is_file():
            shutil.copyfile(source / name, to / name)


def _add_tokens(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": [OPTION, OPTION_END]})
    # Saved with the tokenizer, and true with HF_HUB_OFFLINE: a model's id must be the same everywhere.
    if "local_files_only" in tokenizer.init_kwargs:
        tokenizer.init_kwargs["local_files_only"] = False


def _read(source: Path) -> tuple[Any, Any]:
    """Returns a model's tokenizer, and its processor if it is multimodal, of which the tokenizer is a part."""
    from artsel_ray.models import weights

    if not is_multimodal(source):
        return read_source_tokenizer(source), None
    processor = weights.read_processor(source)
    processor.tokenizer = _as_its_file(source, processor.tokenizer)
    return processor.tokenizer, processor


def copy_source_tokenizer(source: Path, base: Path, to: Path) -> None:
    """Writes a tokenizer from elsewhere, or the base's processor if that is multimodal, into another folder."""
    from artsel_ray.models import weights

    if is_multimodal(base):
        weights.read_processor(base).save_pretrained(to)
    else:
        read_source_tokenizer(source).save_pretrained(to)


def read_source_tokenizer(source: Path) -> Any:
    """Reads a tokenizer from elsewhere, which may have to be converted, with an end token.

    Raises:
        InputError: if there is none, or it cannot be converted.
    """
    from transformers import AutoTokenizer

    try:
        by_class = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  # each class of tokenizers fails in its own way
        return _as_its_file(source, None, one_line(error))
    return _as_its_file(source, by_class)


def _as_its_file(source: Path, by_class: Any, problem: str = "it cannot be converted") -> Any:
    """Returns the tokenizer that its class has made, or that of tokenizer.json where the two do not agree.

    A class named in tokenizer_config.json builds some parts itself: a byte-level tokenizer that says it is a Llama's
    loses its spaces (https://github.com/huggingface/transformers/issues/45488).
    """
    from artsel_ray.models import weights

    if not (source / "tokenizer.json").is_file():
        if by_class is None or not by_class.is_fast:
            raise InputError(f"{source} has no tokenizer.json, and its tokenizer cannot be read otherwise: {problem}")
        return by_class
    by_file = weights.read_tokenizer(source)
    try:
        differ = by_class is None or by_class.eos_token_id is None or _probed(by_class) != _probed(by_file)
    except Exception as error:  # noqa: BLE001  # what tokenizer_config.json says is of any type
        raise InputError(f"{source}: its tokenizer fails: {one_line(error)}; take another model") from None
    return by_file if differ else by_class


def _probed(tokenizer: Any) -> list[Any]:
    ids = tokenizer(list(_PROBES), add_special_tokens=False)["input_ids"]
    return [ids, tokenizer.batch_decode(ids)]


def save_with_options(model: "PreTrainedModel", tokenizer: Any, to: Path) -> None:
    """Adds the tokens; each new row is the mean of the rows of the subword tokens that spelled it until now."""
    import torch

    spelled = {token: tokenizer(token, add_special_tokens=False)["input_ids"] for token in (OPTION, OPTION_END)}
    _add_tokens(tokenizer)
    embeddings: Any = model.get_input_embeddings()
    had = embeddings.num_embeddings
    if len(tokenizer) > had:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    # Tied embeddings are one module, and are filled once.
    sides: dict[int, Any] = {id(side): side for side in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for side in sides.values():
            # Tokens that the model never had rows for get no random ones: a model's id must be the same everywhere.
            side.weight[had:] = side.weight[:had].mean(dim=0)
            for token, ids in spelled.items():
                if ids:  # a tokenizer that leaves out what it does not know has no such rows
                    side.weight[tokenizer.convert_tokens_to_ids(token)] = side.weight[ids].mean(dim=0)
    model.save_pretrained(to, safe_serialization=True)
    tokenizer.save_pretrained(to)
