from transformers import PreTrainedTokenizerBase

from artsel_ray.prompts import chat


def test_a_turn_is_the_users_message_and_the_start_of_the_answer(llama_3: PreTrainedTokenizerBase) -> None:
    text = chat.turn(llama_3, "Hello")
    assert text.endswith(
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_template_with_a_date_gets_the_same_one_every_day(llama_3: PreTrainedTokenizerBase) -> None:
    assert "Today Date: 26 Jul 2024" in chat.turn(llama_3, "Hello")


def test_a_template_without_a_date_gets_none(tokenizer: PreTrainedTokenizerBase) -> None:
    assert chat.turn(tokenizer, "Hello").endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
