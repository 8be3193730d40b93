"""Models on disk: where they come from, what is never read, and what a training leaves. Read in this order:

- `load`: the one guarded door: a model's name becomes a folder that is ready here, with the option tokens.
- `files`: which files make a model, how they get here, and the digest that identifies them.
- `hub`: models from the Hugging Face hub, and why one cannot be had.
- `checks`: what is refused: incomplete, unsafe or contradictory files, and what generates no text.
- `tokenizer_trial`: that process.
- `tokenizer_check`: tries a tokenizer in a process with limits.
- `options`: adds the option tokens to a model or to its tokenizer.
- `foreign`: PEFT adapters from elsewhere, alone or left next to a model's weights.
- `adapter_config`: what the settings of such an adapter may say.
- `weights`: reads a ready model's weights, tokenizer or processor.
- `adapter`: LoRA with trained rows, its merge, and the base that it names.
- `packed_attention`: makes a model take packed rows (`prompts.packing`).
- `spec`: the prompt specification that is stored with a trained model, and the flags against it.
- `prior_weights`: how much a trained model and its prior count.
- `tiny`: a Llama that trains from random weights in minutes.
"""
