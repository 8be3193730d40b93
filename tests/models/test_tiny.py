from pathlib import Path

import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerFast

from artsel_ray import schema, storage
from artsel_ray.models import adapter
from artsel_ray.models.load import load
from artsel_ray.models.tiny import write_tiny
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer


def test_a_tiny_model_sees_the_catalogues_words_and_the_options_numbers(tmp_path: Path) -> None:
    titles = [{"title_id": "t", "name": "Der Öltanker", "genres": ["Sci-Fi"]}]
    artworks = [{"artwork_id": f"a{n}", "title_id": "t", "caption": c} for n, c in enumerate(["A red Tower.", None])]
    for name, rows in (("titles", titles), ("artworks", artworks)):
        table = pa.Table.from_pylist(rows, schema.TABLES[name])
        storage.write_table(str(tmp_path / name / "a.parquet"), table, name)
    write_tiny(str(tmp_path / "titles"), str(tmp_path / "artworks"), tmp_path / "model")
    model = load(str(tmp_path / "model"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model.path)
    prompts = PromptTokenizer(tokenizer, PromptSpec(output="number"))
    options = prompts.options("Der Öltanker", ["Sci-Fi"], ["A red tower.", "The 3 towers of 1999."])
    seen = tokenizer.convert_ids_to_tokens(prompts.prompt(options.block, []))
    assert seen == ["<s>", "der", "öltanker", "sci", "1", "<option>", "red", "tower", "</option>", "2", "<option>",
                    "</option>", "<option>"]  # fmt: skip
    assert [tokenizer.convert_ids_to_tokens(answer) for answer in options.answers] == [["1"], ["2"]]
    weights = adapter.read_model(model.path, torch.float32)
    assert weights.num_parameters() < 150_000
    assert all(bool(parameter.isfinite().all()) for parameter in weights.parameters())
