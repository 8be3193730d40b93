"""Language models, as decoders and jobs ask them. Read in this order:

- `base`: the protocol, and the usage that every engine counts.
- `vllm`: a model in vLLM; captions, rationales and scores in production.
- `vllm_arguments`: what vLLM is started with, and its errors in our flags' words.
- `torch`: a model in transformers; validation in training, and scoring without vLLM.
- `text_encoder`: frozen vectors of texts, from a language model's middle layers.
- `vision`: captions by vision-language models that vLLM does not have.
- `fake`: no model; measures and tests everything else.
"""
