"""Models and their tokenizers out of any file that holds them."""

from pathlib import Path

import torch

from core_attn.weights import read_weights

from .models import Decoder
from .tokens import Tokenizer


def load(path: str | Path) -> tuple[Decoder, Tokenizer | None]:
    """A language model in eval mode on the CPU, and its tokenizer.

    Args:
        path: a checkpoint that `attn-language fit` wrote, a Hugging Face folder of the LLaMA
            family (config.json, model.safetensors, tokenizer.json), a GGUF file, or an official
            SpikeGPT (*.pth), which holds no tokenizer.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds another kind of model.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        from .official.huggingface import read_folder

        return read_folder(path)
    if path.suffix == ".gguf":
        from .official.gguf_file import read_gguf

        return read_gguf(path)
    if path.suffix == ".pth":
        from .official import huggingface, spikegpt

        state = read_weights(path).state
        config = spikegpt.config_from({}, state)
        with torch.device("meta"):
            model = config.build()
        huggingface.fill(model, lambda: spikegpt.from_official(state, config), path)
        return model.eval(), None
    from core_attn.training import opened

    from .tasks import LanguageModel

    task = opened(path).task
    if not isinstance(task, LanguageModel) or task.tokenizer is None:
        raise ValueError(f"{path} holds a {type(task).__name__}, no language model")
    return task.network, task.tokenizer


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a checkpoint, a GGUF file, a Hugging Face folder, or a tokenizer.json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds none.
    """
    from .tokens import read_tokenizer, tokenizer_from

    path = Path(path).expanduser()
    if path.is_dir():
        return read_tokenizer(path / "tokenizer.json")
    if path.suffix == ".gguf":
        from .official import gguf_file

        return gguf_file.tokenizer_from(gguf_file.GGUF(path))
    if path.suffix == ".ckpt":
        from core_attn.training.checkpoint import read_checkpoint

        content = read_checkpoint(path)
        if "tokenizer" not in content:
            raise ValueError(f"{path} holds no tokenizer")
        return tokenizer_from(content["tokenizer"])
    return read_tokenizer(path)
