"""The caption job: a vision-language model describes the images of artworks. Read in this order:

- `settings`: the job's flags.
- `job`: `caption`, the entry: what a run consists of, and its summary.
- `loading`: a shard's artworks with their images, and the captions that earlier runs made.
- `captioner`: the engine stage: captions for a loaded shard.
- `prompts`: the question about an image, and the cleaned answer.
"""
