"""The embedded models: tiny Llama transformers that do arithmetic, and the recipe that trains them."""
