"""A Llama of about 100 M random parameters: it measures speed, never quality."""

from __future__ import annotations

from pathlib import Path

BENCH_MODEL = "bench-100m"
VOCABULARY = 8192
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def make_bench_model(folder: Path, seed: int = 20_260) -> Path:
    """Write the model in Hugging Face's format, once; the same weights for the same seed."""
    if (folder / "model.safetensors").exists() and (folder / "tokenizer.json").exists():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # the end of the answer is never the best token, so that every answer has the length it was asked for
        model.lm_head.weight[0] = 0.0
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def prompt_of(number: int, words: int = 32) -> str:
    """A prompt of so many tokens, another one for each number, so that the prefix cache helps nobody."""
    return " ".join(f"w{(number * 7919 + place * 104_729) % (VOCABULARY - 2) + 1}" for place in range(words))


def _tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<end>": 0, **{f"w{number}": number for number in range(1, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    fast.chat_template = TEMPLATE
    return fast
