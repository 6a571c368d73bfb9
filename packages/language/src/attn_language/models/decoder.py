"""The skeleton of every language model: embedding, blocks, norm, head, and a state."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import Dropout


class Branch(Protocol):
    """A part of a block: it maps tokens to their change, and its state to the next one.

    `state` is what an earlier call returned, None at the start of a text; `valid` is False at
    padding, None where there is none.
    """

    def __call__(  # noqa: D102
        self, x: Tensor, state: Any = None, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]: ...


class State(NamedTuple):
    """What a model keeps of the tokens it has read: an argument and a result, never hidden.

    Attributes:
        position: how many tokens were read.
        batch: of how many texts.
        blocks: what each block keeps.
        config: of the model that read them.
    """

    position: int
    batch: int
    blocks: tuple[Any, ...]
    config: "DecoderConfig"


# The smallest value of what configurations count or weigh, of all mixers.
LEAST = dict.fromkeys((
    "vocab", "context", "dim", "depth", "heads", "kv_heads", "head_dim", "hidden", "max_distance",
    "window", "local_window", "clusters", "max_relative", "embedding_dim", "heads_per_token",
    "experts", "experts_per_token", "tau", "classes",
), 1) | dict.fromkeys((
    "memory", "memory_slots", "first_routing", "norm_eps", "commitment", "ema_count_init",
    "balance", "router_z", "logit_l2",
), 0)  # fmt: skip


def check_sizes(config: Any) -> None:
    """Requires what a configuration counts or weighs to be in range.

    Raises:
        ValueError: a value is not; the message names it.
    """
    for name, least in LEAST.items():
        value = getattr(config, name, None)
        if isinstance(value, int | float) and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {config.dropout}")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What all language models have; a subclass adds its own and says what the parts are.

    Attributes:
        vocab: number of token ids.
        context: tokens of a training text; the most a model with learned positions can read.
        dim: features of a token.
        depth: blocks.
        dropout: probability of dropping a feature, in training.
    """

    vocab: int = 256
    context: int = 128
    dim: int = 64
    depth: int = 2
    dropout: float = 0.0

    def __post_init__(self):
        """Refuses sizes that cannot be built."""
        check_sizes(self)

    @property
    def limit(self) -> int | None:
        """The most tokens a text may have; None for any number."""
        return None

    @property
    def reach(self) -> int | None:
        """The most tokens that a state goes on from; None for any number."""
        return self.limit

    @property
    def exact_steps(self) -> bool:
        """Whether reading a text token by token gives what reading it at once gives."""
        return True

    def build(self) -> "Decoder":
        """The model, untrained."""
        return Decoder(self)

    def make_embedding(self) -> nn.Module:
        """The module from (ids, position of the first) to features."""
        return Embedding(self.vocab, self.dim)

    def make_block(self, index: int) -> nn.Module:
        """Block number `index`."""
        raise NotImplementedError

    def make_final_norm(self) -> nn.Module:
        """What stands between the last block and the head."""
        return nn.LayerNorm(self.dim)

    def make_head(self) -> nn.Linear | None:
        """The output matrix; None where it is that of the embedding."""
        return nn.Linear(self.dim, self.vocab, bias=False)

    def initialize(self, model: "Decoder") -> None:
        """Sets the initial weights: matrices normal with deviation 0.02, biases zero."""
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class Decoder(nn.Module):
    """Token ids -> logits of the next token, for any mixer.

    Args:
        config: says what the parts are.

    Example:
        >>> import torch
        >>> from attn_language import create
        >>> model = create("transformer", vocab=65, dim=16, heads=2, depth=2)
        >>> ids = torch.randint(65, (2, 7))
        >>> model(ids).shape
        torch.Size([2, 7, 65])
        >>> logits, state = model.step(ids[:, :4])
        >>> rest, state = model.step(ids[:, 4:], state)
        >>> torch.cat((logits, rest), 1).allclose(model(ids), atol=1e-5)
        True
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.embed = config.make_embedding()
        self.blocks = nn.ModuleList(map(config.make_block, range(config.depth)))
        self.norm = config.make_final_norm()
        self.head = config.make_head()
        if not next(self.parameters()).is_meta:  # else weights of a file take their place
            config.initialize(self)

    def forward(
        self, ids: Int[Tensor, "batch tokens"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the token after each one.

        Args:
            ids: of the tokens.
            lengths: valid tokens of each text; those from there on are padding, and their logits
                mean nothing.

        Raises:
            TypeError: ids are not integers.
            ValueError: an id or a length is out of range, or the text too long.
        """
        return self.logits(self.features(ids, lengths))

    def features(
        self, ids: Int[Tensor, "batch tokens"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """What the head reads; arguments and errors as in `forward`."""
        return self._run(ids, None, valid_tokens(ids, lengths))[0]

    def step(
        self, ids: Int[Tensor, "batch tokens"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch tokens vocab"], State]:
        """Reads one or more tokens and returns their logits and the state to go on from.

        Args:
            ids: the next tokens.
            state: as an earlier call returned it; None at the start of a text. It stays usable.

        Raises:
            TypeError: ids are not integers.
            ValueError: the state is of another batch size or model, an id is out of range, or the
                text too long.
        """
        x, state = self.advance(ids, state)
        return self.logits(x), state

    def advance(
        self, ids: Int[Tensor, "batch tokens"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch tokens dim"], State]:
        """`step` without the head: what it reads; arguments and errors as in `step`."""
        if not self.config.exact_steps:
            return self._reread(ids, state)
        return self._run(ids, state, None)

    def logits(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens vocab"]:
        """The head alone."""
        if self.head is None:
            return F.linear(x, self.embed.get_parameter("tokens.weight"))
        return self.head(x)

    def _reread(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The whole text again: where later tokens change what earlier ones get."""
        whole = ids
        if state is not None:
            self._check(ids, state, state.position + ids.shape[-1])
            whole = torch.cat((state.blocks[0], ids), 1)
        x = self.features(whole)[:, whole.shape[1] - ids.shape[1] :]
        return x, State(whole.shape[1], ids.shape[0], (whole,) * len(self.blocks), self.config)

    def _run(self, ids: Tensor, state: State | None, valid: Tensor | None) -> tuple[Tensor, State]:
        position = 0 if state is None else state.position
        self._check(ids, state, position + ids.shape[-1])
        kept = (None,) * len(self.blocks) if state is None else state.blocks
        x = self.embed(ids, position)
        following = []
        for block, before in zip(self.blocks, kept, strict=True):
            x, after = block(x, before, valid)
            following.append(after)
        after = State(position + ids.shape[1], ids.shape[0], tuple(following), self.config)
        return self.norm(x), after

    def _check(self, ids: Tensor, state: State | None, tokens: int) -> None:
        check_ids(ids, self.config.vocab)
        if ids.dim() != 2 or ids.shape[1] == 0:
            raise ValueError(
                f"ids must be (batch, tokens) with one token or more, got {tuple(ids.shape)}"
            )
        limit = self.config.limit
        if limit is not None and tokens > limit:
            raise ValueError(f"{tokens} tokens exceed the context of {limit}")
        if state is not None:
            if state.batch != ids.shape[0]:
                raise ValueError(f"state has batch size {state.batch}, input has {ids.shape[0]}")
            if state.config is not self.config and state.config != self.config:
                raise ValueError(f"state is of another model: {state.config}")


def check_ids(ids: Tensor, vocab: int) -> None:
    """Requires token ids; their values only where reading them neither stalls a GPU nor a trace.

    Raises:
        TypeError: they are not integers.
        ValueError: one is outside the vocabulary.
    """
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"ids must be an integer tensor of token ids, got {ids.dtype}")
    if ids.device.type == "cpu" and not torch.compiler.is_compiling() and ids.numel():
        low, high = ids.aminmax()
        if low < 0 or high >= vocab:
            wrong = int(low) if low < 0 else int(high)
            raise ValueError(f"token id {wrong} is outside the vocabulary of {vocab}")


def valid_tokens(
    ids: Int[Tensor, "batch tokens"], lengths: Int[Tensor, " batch"] | None
) -> Bool[Tensor, "batch tokens"] | None:
    """True at tokens, False at padding; None where there is no padding.

    Raises:
        ValueError: lengths do not fit the ids.
    """
    if lengths is None:
        return None
    if lengths.shape != ids.shape[:1]:
        raise ValueError(f"lengths must be ({ids.shape[0]},), got {tuple(lengths.shape)}")
    if lengths.device.type == "cpu" and not torch.compiler.is_compiling() and lengths.numel():
        low, high = lengths.aminmax()
        if low < 0 or high > ids.shape[1]:
            raise ValueError(
                f"lengths must be in [0, {ids.shape[1]}], got values from {int(low)} to {int(high)}"
            )
    return torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]


class Embedding(nn.Module):
    """Learned features of each token, and of each position where `positions` is given.

    Example:
        >>> import torch
        >>> Embedding(10, 4, positions=6)(torch.tensor([[1, 2]]), 3).shape
        torch.Size([1, 2, 4])
    """

    def __init__(self, vocab: int, dim: int, positions: int | None = None, dropout: float = 0.0):
        super().__init__()
        # Not drawn here: the configuration initializes, and drawing on "meta" imports for seconds.
        self.tokens = nn.Embedding.from_pretrained(torch.empty(vocab, dim), freeze=False)
        self.positions = None if positions is None else nn.Embedding(positions, dim)
        self.drop = Dropout(dropout)

    def forward(self, ids: Int[Tensor, "batch tokens"], position: int) -> Tensor:
        """The features of tokens of which the first stands at `position`."""
        x = self.tokens(ids)
        if self.positions is not None:
            x = x + self.positions.weight[position : position + ids.shape[1]]
        return self.drop(x)


class PreNormBlock(nn.Module):
    """x += mixer(norm1(x)); x += feed_forward(norm2(x)).

    Args:
        norm1: before the mixer.
        mixer: a `Branch` that mixes tokens.
        norm2: before the feed-forward.
        feed_forward: a `Branch` on every token.
        dropout: probability of dropping a feature of a branch, in training.
    """

    def __init__(
        self,
        norm1: nn.Module,
        mixer: nn.Module,
        norm2: nn.Module,
        feed_forward: nn.Module,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.norm1, self.mixer = norm1, mixer
        self.norm2, self.feed_forward = norm2, feed_forward
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, state: Any = None, valid: Tensor | None = None):
        """The tokens after the block, and its state."""
        mixing, feeding = state or (None, None)
        y, mixing = self.mixer(self.norm1(x), mixing, valid)
        x = x + self.drop(y)
        y, feeding = self.feed_forward(self.norm2(x), feeding, valid)
        return x + self.drop(y), (mixing, feeding)


class PostNormBlock(PreNormBlock):
    """x = norm1(x + mixer(x)); x = norm2(x + feed_forward(x)); arguments as in `PreNormBlock`."""

    def forward(self, x: Tensor, state: Any = None, valid: Tensor | None = None):
        """The tokens after the block, and its state."""
        mixing, feeding = state or (None, None)
        y, mixing = self.mixer(x, mixing, valid)
        x = self.norm1(x + self.drop(y))
        y, feeding = self.feed_forward(x, feeding, valid)
        return self.norm2(x + self.drop(y)), (mixing, feeding)


class ParallelBlock(nn.Module):
    """u = norm(x); x += mixer(u) + feed_forward(u); arguments as in `PreNormBlock`."""

    def __init__(
        self, norm: nn.Module, mixer: nn.Module, feed_forward: nn.Module, dropout: float = 0.0
    ):
        super().__init__()
        self.norm, self.mixer, self.feed_forward = norm, mixer, feed_forward
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, state: Any = None, valid: Tensor | None = None):
        """The tokens after the block, and its state."""
        mixing, feeding = state or (None, None)
        u = self.norm(x)
        mixed, mixing = self.mixer(u, mixing, valid)
        fed, feeding = self.feed_forward(u, feeding, valid)
        return x + self.drop(mixed + fed), (mixing, feeding)
