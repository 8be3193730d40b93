"""Models on disk: where they come from, and the prompt specification stored beside them."""
