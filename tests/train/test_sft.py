from pathlib import Path

from artsel_ray.models.load import load
from artsel_ray.train.job import training_of
from artsel_ray.train.loop import fit
from artsel_ray.train.orders import Order
from artsel_ray.train.reading import read_train
from artsel_ray.train.sft import SftCollator
from tests.support.training import TinyLlama, example_row, prompts_of, train_config, write_examples


def test_batch_supervises_the_answer_and_nothing_else(examples: str, tiny_llama: TinyLlama) -> None:
    prompts = prompts_of(load(tiny_llama(True)))
    read_examples = read_train(f"{examples}/train", prompts, 2048, 0, False)
    order = Order(read_examples.length_n, 4, 0)
    batch = SftCollator(read_examples, order, 0)([{"index": 3}, {"index": 6}])
    for line, index in enumerate((3, 6)):
        prompt, answer = read_examples.prompt(index).tolist(), read_examples.titles[0].options.answers[index // 4]
        target = [*answer, prompts.option_end, prompts.tokenizer.eos_token_id]
        length = len(prompt) + len(target)
        padding = batch["input_ids"].shape[1] - length
        assert batch["input_ids"][line].tolist() == prompt + target + [0] * padding
        assert batch["labels"][line].tolist() == [-100] * len(prompt) + target + [-100] * padding
        assert batch["attention_mask"][line].tolist() == [1] * length + [0] * padding


def test_examples_that_no_caption_can_tell_apart_are_counted(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    rows = [example_row(number, label=number % 2, captions=["Same.", "Same.", "Another."]) for number in range(3)]
    write_examples(f"{examples}/train", [*rows, example_row(8, label=2, captions=["Same.", "Same.", "Another."])])
    lines: list[str] = []
    config = train_config(examples, tiny_llama(True), tmp_path / "T", max_steps=1)
    fit(training_of(config), str(tmp_path / "scratch"), None, [], lines.append)
    assert lines[0].startswith("warning: 3 of 4 train examples engage with an artwork that reads the same as another")
