"""Models on disk: where they come from, what is never read, and what a training leaves. Read in this order:

- `load`: the one guarded door: a model's name becomes a folder that is ready on this machine.
- `files`: which files make a model, how they get here, and the digest that identifies them.
- `safety`: refuses pickled weights and code that comes with a model.
- `option_tokens`: adds `<option>` and `</option>` to a model that lacks them.
- `smollm2`: converts the bundled model.
- `cache`: folders that are made once on this machine.
- `weights`: reads a ready model's weights, tokenizer or processor.
- `adapter`: LoRA with trained rows, its merge, and the base that it names.
- `spec`: the prompt specification that is stored with a trained model, and the flags against it.
- `tiny`: a Llama that trains from random weights in minutes.
"""
