"""A second small model, made by the tests: a random Llama with a byte tokenizer and a ChatML template.

The template refuses turns of tools, as many real ones refuse this role or that.
"""

from __future__ import annotations

from pathlib import Path

CHATML = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'tool' -%}{{ raise_exception('no tools here') }}{%- endif -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
CONTEXT_WINDOW = 256


def make_tiny_model(
    folder: Path, seed: int = 7, context_window: int = CONTEXT_WINDOW, endless: bool = False
) -> Path:
    """Write a Hugging Face folder of about 0.3 MB; the same bytes for the same seed.

    ``endless``: its answers are as long as they may be; else they end by chance, after 260 tokens on average.
    """
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_tokenizer(context_window)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=context_window,
        tie_word_embeddings=True,
        initializer_range=0.6,  # wide, so that the best token leads clearly and rounding decides nothing
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )
    model = LlamaForCausalLM(config)
    if endless:
        # The best of the others' logits is far above 0.
        with torch.no_grad():
            model.get_input_embeddings().weight[config.eos_token_id] = 0.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _byte_tokenizer(context_window: int):  # type: ignore[no-untyped-def]
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {piece: number for number, piece in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        padding_side="left",
        model_max_length=context_window,
        chat_template=CHATML,
    )
