"""Models on disk: where they come from, what is never read, and what a training leaves. Read in this order:

- `load`: the one guarded door: a model's name becomes a folder that is ready here, with the option tokens.
- `files`: which files make a model, how they get here, what is refused, and the digest that identifies them.
- `weights`: reads a ready model's weights, tokenizer or processor.
- `adapter`: LoRA with trained rows, its merge, and the base that it names.
- `spec`: the prompt specification that is stored with a trained model, and the flags against it.
- `tiny`: a Llama that trains from random weights in minutes.
"""
