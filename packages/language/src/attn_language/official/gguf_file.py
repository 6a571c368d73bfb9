"""LLaMA-family models and their tokenizers in GGUF files."""

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Regex, decoders, pre_tokenizers
from tokenizers import Tokenizer as Model
from tokenizers.models import BPE
from torch import Tensor

from ..models import Decoder
from ..models.transformer import TransformerConfig
from ..tokens import Learned, Tokenizer
from .huggingface import fill, from_official

FAMILY = ("llama", "qwen2")
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_MOST_AXES = 4  # of the format
_STRING, _ARRAY = 8, 9
_NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
_ENDS = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
}  # fmt: skip


class Stored(NamedTuple):
    """A tensor in the file: its shape, quantization, and where its bytes begin."""

    shape: tuple[int, ...]
    kind: int
    start: int


class GGUF:
    """The header of a GGUF file: settings by name, and where the tensors lie.

    The header is read front to back here: the `gguf` package's reader takes many seconds for a
    vocabulary.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no GGUF file, or is cut.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        self.bytes = np.memmap(self.path, np.uint8, "r") if self.path.stat().st_size else None
        if self.bytes is None or bytes(self.bytes[:4]) != b"GGUF":
            raise ValueError(f"{path} is no GGUF file")
        with self.path.open("rb") as file:
            self._file = file
            file.read(4)
            version = self._one("I")
            if version not in (2, 3):
                raise ValueError(f"{path}: GGUF version {version} is not supported; 2 and 3 are")
            tensors, settings = self._one("Q"), self._one("Q")
            self.settings = {self._string(): self._value(self._one("I")) for _ in range(settings)}
            self.tensors = dict(self._tensor() for _ in range(tensors))
            align = self.settings.get("general.alignment", 32)
            start = -(-file.tell() // align) * align
            del self._file
        for name, stored in self.tensors.items():
            self.tensors[name] = stored._replace(start=stored.start + start)

    def setting(self, name: str) -> Any:
        """A setting.

        Raises:
            ValueError: it is missing.
        """
        if name not in self.settings:
            raise ValueError(f"{self.path}: setting {name} is missing")
        return self.settings[name]

    def tensor(self, name: str) -> Tensor:
        """A tensor, dequantized to float32.

        Raises:
            ValueError: it is missing or cut, or of an unknown quantization.
        """
        if name not in self.tensors:
            raise ValueError(f"{self.path}: tensor {name} is missing")
        shape, kind, start = self.tensors[name]
        try:
            quantization = gguf.GGMLQuantizationType(kind)
            block, size = gguf.GGML_QUANT_SIZES[quantization]
        except (ValueError, KeyError):
            raise ValueError(
                f"{self.path}: tensor {name} has the unknown quantization {kind}"
            ) from None
        numbers = math.prod(shape)  # of any length: a damaged file may say anything
        if numbers % block:
            raise ValueError(
                f"{self.path}: tensor {name} of {numbers} numbers is no blocks of {block}"
            )
        count = numbers // block * size
        assert self.bytes is not None
        data = self.bytes[start : start + count]
        if len(data) < count:
            raise ValueError(f"{self.path} is cut: it ends inside tensor {name}")
        return _dequantized(data, quantization, self.path, name).view(shape)

    def _read(self, size: int) -> bytes:
        assert self.bytes is not None
        data = self._file.read(size) if size <= len(self.bytes) else b""
        if len(data) < size:
            raise ValueError(f"{self.path} is cut: it ends inside its header")
        return data

    def _one(self, letter: str) -> Any:
        return struct.unpack("<" + letter, self._read(struct.calcsize("<" + letter)))[0]

    def _string(self) -> str:
        return self._read(self._one("Q")).decode(errors="replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            kind, size = self._one("I"), self._one("Q")
            return [self._value(kind) for _ in range(size)]
        if kind not in _SCALARS:
            raise ValueError(f"{self.path}: its header has a value of unknown type {kind}")
        return self._one(_SCALARS[kind])

    def _tensor(self) -> tuple[str, Stored]:
        name = self._string()
        if (axes := self._one("I")) > _MOST_AXES:
            raise ValueError(f"{self.path}: tensor {name} has {axes} axes, more than {_MOST_AXES}")
        shape = tuple(self._one("Q") for _ in range(axes))
        return name, Stored(shape[::-1], self._one("I"), self._one("Q"))


def _dequantized(data: np.ndarray, kind: Any, path: Path, name: str) -> Tensor:
    """Float32 of the common quantizations in a few passes; of others by the `gguf` package."""
    kinds = gguf.GGMLQuantizationType
    raw = torch.from_numpy(np.array(data))
    if kind == kinds.F32:
        return raw.view(torch.float32)
    if kind in (kinds.F16, kinds.BF16):
        return raw.view(torch.float16 if kind == kinds.F16 else torch.bfloat16).float()
    if kind == kinds.Q8_0:
        blocks = raw.view(-1, 34)
        scale = blocks[:, :2].contiguous().view(torch.float16).float()
        return blocks[:, 2:].contiguous().view(torch.int8).float().mul_(scale)
    if kind in (kinds.Q4_0, kinds.Q4_1):
        head = 2 if kind == kinds.Q4_0 else 4
        blocks = raw.view(-1, head + 16)
        scales = blocks[:, :head].contiguous().view(torch.float16).float()
        nibbles = blocks[:, head:]
        q = torch.cat((nibbles & 15, nibbles >> 4), 1).float()
        shift = scales[:, 1:] if head == 4 else -8 * scales[:, :1]
        return q.mul_(scales[:, :1]).add_(shift)
    try:
        return torch.from_numpy(gguf.dequantize(np.array(data), kind).astype(np.float32))
    except NotImplementedError:
        message = f"{path}: tensor {name} has the unsupported quantization {kind.name}"
        raise ValueError(message) from None


def config_from(file: GGUF) -> TransformerConfig:
    """Our configuration from the file's settings.

    Raises:
        ValueError: another architecture, an option that we do not have, or a setting is missing.
    """
    settings = file.settings
    kind = settings.get("general.architecture")
    if kind not in FAMILY:
        raise ValueError(
            f"{file.path}: architecture {kind!r} is not supported; there is {', '.join(FAMILY)}"
        )
    scaling = settings.get(f"{kind}.rope.scaling.type", "linear")
    if scaling not in ("none", "linear"):
        raise ValueError(f"{file.path}: rope scaling {scaling!r} is not supported")

    def of(name: str) -> Any:
        return file.setting(f"{kind}.{name}")

    heads, dim = of("attention.head_count"), of("embedding_length")
    head_dim = settings.get(f"{kind}.attention.key_length", dim // heads)
    turned = settings.get(f"{kind}.rope.dimension_count", head_dim)
    if turned != head_dim:
        raise ValueError(f"{file.path}: {turned} rotary features of {head_dim} are not supported")
    linear = settings.get(f"{kind}.rope.scaling.factor", 1.0) if scaling == "linear" else 1.0
    factors = [linear] * (head_dim // 2)
    if "rope_freqs.weight" in file.tensors:
        factors = [linear * x for x in file.tensor("rope_freqs.weight").tolist()]
    if "token_embd.weight" not in file.tensors:
        raise ValueError(f"{file.path}: tensor token_embd.weight is missing")
    return TransformerConfig(
        vocab=file.tensors["token_embd.weight"].shape[0],
        context=of("context_length"),
        dim=dim,
        depth=of("block_count"),
        heads=heads,
        kv_heads=settings.get(f"{kind}.attention.head_count_kv", heads),
        head_dim=head_dim,
        hidden=of("feed_forward_length"),
        positions="rotary",
        rope_base=settings.get(f"{kind}.rope.freq_base", 10000.0),
        rope_factors=None if set(factors) == {1.0} else tuple(factors),
        norm="rms",
        norm_eps=of("attention.layer_norm_rms_epsilon"),
        activation="silu",
        gated=True,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        out_bias="blk.0.attn_output.bias" in file.tensors,
        bias=False,
        tied="output.weight" not in file.tensors,
    )


def official_state(file: GGUF, config: TransformerConfig) -> dict[str, Tensor]:
    """The tensors under their Hugging Face names, queries and keys in that order of features."""
    out = {}
    for name in file.tensors:
        x, (part, _, suffix) = file.tensor(name), name.partition(".")
        if part == "blk":
            layer, piece, suffix = suffix.split(".")
            if piece not in _NAMES:
                raise ValueError(f"{file.path}: tensor {name} is not supported")
            is_llama = file.settings["general.architecture"] == "llama"
            if is_llama and piece in ("attn_q", "attn_k"):  # stored for interleaved rotation
                heads = config.heads if piece == "attn_q" else config.kv_heads or config.heads
                x = x.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)
            out[f"model.layers.{layer}.{_NAMES[piece]}.{suffix}"] = x
        elif part in _ENDS:
            out[f"{_ENDS[part]}.{suffix}"] = x
        elif part != "rope_freqs":
            raise ValueError(f"{file.path}: tensor {name} is not supported")
    return out


_DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "exaone", "codeshell")
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_from(file: GGUF) -> Tokenizer:
    """The byte-level BPE tokenizer in the file.

    Raises:
        ValueError: it is of another kind.
    """
    settings = file.settings
    kind = settings.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise ValueError(f"{file.path}: tokenizer {kind!r} is not supported; byte-level BPE is")
    tokens, pre = (
        file.setting("tokenizer.ggml.tokens"),
        settings.get("tokenizer.ggml.pre", "default"),
    )
    merges = [tuple(merge.split(" ", 1)) for merge in file.setting("tokenizer.ggml.merges")]
    try:
        model = Model(BPE({token: i for i, token in enumerate(tokens)}, merges))
    except Exception as error:  # the library raises nothing more precise
        raise ValueError(f"{file.path}: its tokenizer cannot be read: {error}") from None
    steps: list = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if pre in _DIGITS_APART:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    elif pre in ("llama-bpe", "qwen2"):
        no_split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        words = Regex(_WORDS % ("{1,3}" if pre == "llama-bpe" else ""))
        steps = [pre_tokenizers.Split(words, "isolated"), no_split]
    elif pre not in ("default", "gpt-2"):
        raise ValueError(f"{file.path}: pre-tokenizer {pre!r} is not supported")
    model.pre_tokenizer = pre_tokenizers.Sequence(steps)  # type: ignore[assignment]
    model.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    kinds = settings.get("tokenizer.ggml.token_type", [])
    control = [token for token, k in zip(tokens, kinds, strict=False) if k == 3]
    model.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    end = settings.get("tokenizer.ggml.eos_token_id")
    return Learned(model, () if end is None else (end,))


def read_gguf(path: str | Path) -> tuple[Decoder, Tokenizer]:
    """The model in eval mode, in float32, and the tokenizer of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut, or holds something that is not supported.
    """
    file = GGUF(path)
    config = config_from(file)
    with torch.device("meta"):
        model = config.build()
    fill(model, lambda: from_official(official_state(file, config), config), path)
    return model.eval(), tokenizer_from(file)
