from pathlib import Path

import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerFast

from artsel_ray import schema, storage
from artsel_ray.models.load import load
from artsel_ray.models.tiny import write_tiny
from artsel_ray.models.weights import read_model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer


def test_tiny_model_reads_the_words_of_its_catalog_and_the_numbers_of_options(tmp_path: Path) -> None:
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
    tokens = tokenizer.convert_ids_to_tokens(prompts.prompt(options.prefix, []))
    assert tokens == ["<s>", "der", "öltanker", "sci", "1", "<option>", "red", "tower", "</option>", "2", "<option>",
                    "</option>", "<option>"]  # fmt: skip
    assert [tokenizer.convert_ids_to_tokens(answer) for answer in options.answers] == [["1"], ["2"]]
    weights = read_model(model.path, torch.float32)
    assert weights.num_parameters() < 150_000
    assert all(bool(parameter.isfinite().all()) for parameter in weights.parameters())
