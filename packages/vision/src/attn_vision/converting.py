"""`convert`: official checkpoints to files of this package and back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from core_attn.variants import variant as named
from core_attn.weights import copy_weights, read_weights

from .models import VARIANTS
from .official import classes_of, converter


def convert_file(
    input: str, output: str, variant: str, settings: dict[str, Any] | None, back: bool
) -> str:
    """Converts a file and says what was done.

    Args:
        input: an official checkpoint, whatever wraps its weights; with `back`, a folder or file of
            this package.
        output: the folder to write, for `from_pretrained`; with `back`, a safetensors file.
        variant: which model it is of.
        settings: fields of its configuration that differ; classes are taken from the file.
        back: from this package's names to the official ones.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not of this model; the first names that differ are listed.
    """
    state, source = read_weights(input)
    settings = {k: tuple(x) if isinstance(x, list) else x for k, x in (settings or {}).items()}
    config = named(VARIANTS, variant, **settings)
    if "classes" not in settings:
        config = replace(config, classes=classes_of(state, config))
    module = converter(config)
    if back:
        model = config.build()
        done = copy_weights(model, state)
        if done.missing or done.reshaped:
            raise ValueError(f"{source} is not a {variant}: {done}")
        target = Path(output)
        target.parent.mkdir(parents=True, exist_ok=True)
        theirs = module.to_official(model.state_dict(), config)
        save_file({name: x.contiguous().clone() for name, x in theirs.items()}, target)
        return f"{source}: {len(theirs)} weights under official names in {target}"
    ours = module.from_official(state, config)
    model = config.build()
    model.load_state_dict(ours)
    model.save_pretrained(output)
    return f"{source}: {len(ours)} weights in {output}, for {type(model).__name__}.from_pretrained"
