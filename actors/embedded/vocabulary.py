"""The embedded models' tokenizer: every byte has a token, and each fixed phrase of the prompts has one.

Any text can be encoded and comes back unchanged; phrases as single tokens keep prompts under 70 tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
MAX_POSITIONS = 512

PHRASES = (
    "What is ", "Calculate ", "How much is ", "?", ".", " plus ", " minus ", " times ",
    " + ", " - ", " * ", " = ", " = ?",
    "Question: ", " Answer: ", " Answers: ", " Critique: ", " | ",
    " Check it.", " Fix it.", " Merge them.", "I get ", ". Right.", ". Wrong.",
)  # fmt: skip

VERDICT_PIECES = (".ĠRight.", ".ĠWrong.")  # as the byte-level vocabulary spells them

# System messages are dropped: the models know nothing that one could steer. Common spellings of the
# wordings they know are put into those.
_SPELLINGS = {
    "what is ": "What is ",
    "What's ": "What is ",
    "what's ": "What is ",
    "calculate ": "Calculate ",
    "how much is ": "How much is ",
}
_SPELLED = "".join(f' | replace("{typed}", "{known}")' for typed, known in _SPELLINGS.items())
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{ '" + USER + "' + (message['content'] | trim" + _SPELLED + ") }}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{ '" + ASSISTANT + "' + message['content'] | trim + '" + END + "' }}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '" + ASSISTANT + "' }}{%- endif -%}"
)

# A phrase must beat its bytes whatever its length; Unigram maximises the sum of these.
_PHRASE_SCORE, _BYTE_SCORE = -1.0, -10.0


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level unigram tokenizer with the chat template, the same on every call."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [(special, 0.0) for special in (PAD, END, USER, ASSISTANT)]
    pieces += [(symbol, _BYTE_SCORE) for symbol in sorted(pre_tokenizers.ByteLevel.alphabet())]
    spelled = ["".join(piece for piece, _ in byte_level.pre_tokenize_str(phrase)) for phrase in PHRASES]
    pieces += [(piece, _PHRASE_SCORE) for piece in spelled if len(piece) > 1]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(special, special=True, normalized=False) for special in (PAD, END, USER, ASSISTANT)]
    )
    build: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast
    return build(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
