"""Cutting heads and units out of a decoder, so that it is smaller and ordinary again."""

import copy
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .amp import Decoder, Removal
from .prompts import checked
from .prune import cut_columns, cut_heads, cut_rows, kept_rows


def prune_decoder(decoder: Decoder, removal: Removal) -> nn.Module:
    """A copy of the decoder's model without some heads and units, the same number in each layer.

    Queries, keys and values lose rows (with their biases), output projections columns. A key and
    value head goes when all query heads that share it go. The configuration of a Hugging Face
    model says the new counts and the head size, so that `save_pretrained` and `from_pretrained`
    work, and a configuration of this project builds the smaller model; GPT-2's cannot say a head
    size, so a GPT-2 with fewer heads cannot be reloaded.

    Args:
        decoder: the model.
        removal: from `Decoder.choose`.

    Raises:
        ValueError: query heads that share keys would be left in uneven groups, or a layer is of
            an unknown kind.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=12,
        ...                      num_hidden_layers=1, num_attention_heads=4)
        >>> decoder = Decoder(LlamaForCausalLM(config).eval())
        >>> found = decoder.importance([torch.tensor([1, 2, 3])])
        >>> smaller = prune_decoder(decoder, decoder.choose(found, heads=1, units=4))
        >>> smaller.config.num_attention_heads, smaller.config.intermediate_size
        (3, 8)
    """
    kept = {name: _remaining(decoder, name, removal.heads.get(name, ())) for name in decoder.sites}
    counts = {(len(heads), len(pairs)) for heads, pairs in kept.values()}
    if len(counts) != 1:
        raise ValueError("the same number of heads must go in every layer")
    model = copy.deepcopy(decoder.model)
    for name, (heads, pairs) in kept.items():
        if len(heads) < decoder.heads:
            _cut_attention(name, model.get_submodule(name), heads, pairs, decoder)
    units = decoder.units
    for name, gone in removal.units.items():
        site = decoder.unit_sites[name]
        lost = set(gone)
        rows = torch.tensor([unit for unit in range(site.units) if unit not in lost])
        layer, units = model.get_submodule(name), len(rows)
        for up in site.ups:
            maker = getattr(layer, up)
            stacked = range(maker.weight.numel() // (getattr(layer, site.down).weight.numel()))
            every = torch.cat([rows + part * site.units for part in stacked])
            setattr(layer, up, cut_rows(maker, every))
        setattr(layer, site.down, cut_columns(getattr(layer, site.down), rows))
    heads, pairs = next(iter(kept.values()))
    _say(model, decoder, len(heads), len(pairs), units)
    return model


def _remaining(decoder: Decoder, name: str, gone: Sequence[int]) -> tuple[list[int], list[int]]:
    """Query heads and key heads that stay."""
    size = decoder.heads // decoder.kv_heads
    heads = [head for head in range(decoder.heads) if head not in set(gone)]
    left = [sum(head // size == pair for head in heads) for pair in range(decoder.kv_heads)]
    if len(set(left) - {0}) > 1:
        raise ValueError(
            f"{name}: {decoder.heads - len(heads)} removed query heads leave groups of {left}; "
            "every key/value head must keep as many, choose them with group='even' or 'kv'"
        )
    return heads, [pair for pair, count in enumerate(left) if count]


def _cut_attention(
    name: str, layer: Any, heads: list[int], pairs: list[int], decoder: Decoder
) -> None:
    if not hasattr(layer, "q_proj"):
        cut_heads(name, layer, heads, decoder.heads, pairs, decoder.kv_heads)
        return
    dim = layer.q_proj.weight.shape[0] // decoder.heads
    rows, shared = kept_rows(heads, dim), kept_rows(pairs, dim)
    output = next(part for part in ("o_proj", "dense", "out_proj") if hasattr(layer, part))
    for part, chosen in (("q_proj", rows), ("k_proj", shared), ("v_proj", shared)):
        setattr(layer, part, cut_rows(getattr(layer, part), chosen))
    setattr(layer, output, cut_columns(getattr(layer, output), rows))
    for attribute, value in (
        ("num_heads", len(heads)),
        ("num_key_value_heads", len(pairs)),
        ("kv_heads", len(pairs)),
        ("num_key_value_groups", len(heads) // len(pairs)),
    ):
        if isinstance(getattr(layer, attribute, None), int):
            setattr(layer, attribute, value)


def _say(model: nn.Module, decoder: Decoder, heads: int, pairs: int, units: int) -> None:
    config: Any = getattr(model, "config", None)
    site = next(iter(decoder.sites.values()))
    dim = site.output_weight.shape[1] // decoder.heads
    if is_dataclass(config) and not hasattr(config, "model_type"):
        ours = {"heads": heads, "kv_heads": pairs, "head_dim": dim, "hidden": units}
        known = {field.name for field in fields(config)}
        new = {name: value for name, value in ours.items() if name in known}
        model.config = replace(config, **new)  # pyright: ignore[reportArgumentType]
    if not hasattr(config, "model_type"):
        return
    new = {"num_attention_heads": heads, "num_key_value_heads": pairs, "head_dim": dim}
    new |= {"n_inner" if hasattr(config, "n_inner") else "intermediate_size": units}
    for name, value in new.items():
        if name != "num_key_value_heads" or hasattr(config, name):
            setattr(config, name, value)


def recover(
    model: nn.Module,
    texts: Sequence[Tensor],
    *,
    epochs: int = 2,
    lr: float = 3e-4,
    rank: int = 8,
    alpha: int = 16,
    dropout: float = 0.05,
    accumulate: int = 16,
    seed: int = 0,
) -> nn.Module:
    """Trains low-rank updates of a pruned decoder on texts, and merges them.

    Every linear layer in its attention and feed-forward layers gets one; for Llama those are the
    seven of the paper. It needs peft (`pip install core-attn[recover]`).

    Args:
        model: a decoder of Hugging Face or of this project, changed in place.
        texts: token ids, one sequence of two or more each.
        epochs: over the texts.
        lr: of AdamW.
        rank: of the updates.
        alpha: their scale times the rank.
        dropout: on their input.
        accumulate: texts per step.
        seed: of initialization and order.

    Returns:
        The model with its updates merged, in evaluation mode.

    Raises:
        TypeError: a text is no tensor of integers.
        ValueError: no texts, or one that is too short, too long or not of the vocabulary.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    texts = checked(model, texts, least=2, called="text")
    decoder = Decoder(model)
    inside = (*decoder.sites.values(), *decoder.unit_sites.values())
    names = [
        f"{site.name}.{name}"
        for site in inside
        for name, part in site.layer.named_modules()
        if isinstance(weight := getattr(part, "weight", None), Tensor) and weight.dim() == 2
    ]
    turned = not isinstance(model.get_submodule(names[0]), nn.Linear)  # GPT-2's are transposed
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, fan_in_fan_out=turned
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = LoraModel(model, config, "recovery").train()
        optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr)
        for _ in range(epochs):
            for part in torch.randperm(len(texts)).split(accumulate):
                optimizer.zero_grad()
                for index in part.tolist():
                    ids = texts[index]
                    output = model(ids)
                    logits = getattr(output, "logits", output)[0, :-1].float()
                    (nn.functional.cross_entropy(logits, ids[0, 1:]) / len(part)).backward()
                optimizer.step()
    adapted.merge_and_unload()
    return model.requires_grad_(True).eval()
