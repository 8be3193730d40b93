"""The tokens `<option>` and `</option>`, added to models that lack them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from artsel_ray.models.safety import read_object
from artsel_ray.prompts.escaping import OPTION, OPTION_END

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def has_options(folder: Path) -> bool:
    """Tells whether a model's tokenizer has both tokens."""
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        return False
    added = {token["content"] for token in read_object(tokenizer).get("added_tokens", [])}
    return {OPTION, OPTION_END} <= added


def add_options(source: Path, to: Path, is_multimodal: bool) -> None:
    """Writes a copy of a model whose tokenizer and embeddings have the tokens.

    Args:
        is_multimodal: whether it is a vision-language model, whose tokenizer is a part of its processor.
    """
    from transformers import AutoTokenizer

    from artsel_ray.models import weights

    model = weights.read_model(source, "auto")
    if is_multimodal:
        processor = weights.read_processor(source)
        save_with_options(model, processor.tokenizer, to)
        processor.save_pretrained(to)
    else:
        save_with_options(model, AutoTokenizer.from_pretrained(source, trust_remote_code=False), to)


def save_with_options(model: "PreTrainedModel", tokenizer: Any, to: Path) -> None:
    """Adds the two tokens and writes model and tokenizer.

    Each new row is the mean of the rows of the subword tokens that spelled it until now.
    """
    import torch

    spelled = {token: tokenizer(token, add_special_tokens=False)["input_ids"] for token in (OPTION, OPTION_END)}
    tokenizer.add_special_tokens({"additional_special_tokens": [OPTION, OPTION_END]})
    embeddings: Any = model.get_input_embeddings()
    if len(tokenizer) > embeddings.num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    # Tied embeddings are one module, and are filled once.
    sides: dict[int, Any] = {id(side): side for side in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for side in sides.values():
            for token, ids in spelled.items():
                if ids:  # a tokenizer that leaves out what it does not know keeps the row's random start
                    side.weight[tokenizer.convert_tokens_to_ids(token)] = side.weight[ids].mean(dim=0)
    model.save_pretrained(to, safe_serialization=True)
    tokenizer.save_pretrained(to)
