"""A bare wheel says what to install."""

from __future__ import annotations

import pytest

from actors.engines.missing_extra import missing_extra


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch", "cpu"), ("transformers", "transformers"), ("torch.nn", "cpu"), ("vllm.v1.engine", "vllm")],
)
def test_the_extra_is_named(module: str, extra: str) -> None:
    told = missing_extra(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert told is not None and f"pip install 'parley-runtime[{extra}]'" in told
    assert told.startswith(module.partition(".")[0])


@pytest.mark.parametrize(
    "error", [ImportError("libcudart.so", name="torch"), ModuleNotFoundError("x", name="odd"), OSError("x")]
)
def test_other_failures_are_left_as_they_are(error: Exception) -> None:
    assert missing_extra(error) is None
