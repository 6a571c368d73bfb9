"""One training step of each implementation, on the same ids.

Every maker takes a `Shape` and returns a function from ids (batch, fields), each in
[0, rows / fields) for its field, and labels (batch,) to the loss, after one update. It raises
ImportError where the peer is not installed.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Step = Callable[[Tensor, Tensor], Tensor]
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@dataclass(frozen=True)
class Shape:
    """39 fields of a table of a million rows."""

    fields: int = 39
    rows: int = 999_999
    dim: int = 16
    blocks: int = 3
    heads: int = 2

    @property
    def size(self) -> int:
        return self.rows // self.fields

    @property
    def names(self) -> list[str]:
        return [f"f{i}" for i in range(self.fields)]


def ours(
    shape: Shape, preset: str, width: int, optimizer: str = "deferred_adam", **changes
) -> Step:
    from attn_recsys.layout import Layout
    from attn_recsys.models import create
    from attn_recsys.optim import SPARSE, make_optimizer
    from core_attn.allocator import keep_freed_memory

    keep_freed_memory()
    firsts = tuple(1 + i * shape.size for i in range(shape.fields))
    layout = Layout(
        tuple(shape.names), (1,) * shape.fields, firsts, (shape.size,) * shape.fields,
        1 + shape.size * shape.fields,
    )  # fmt: skip
    model = create(
        preset, layout, sparse=optimizer in SPARSE,
        **{"block_widths": (width,) * shape.blocks, "heads": shape.heads} | changes,
    )  # fmt: skip
    update = make_optimizer(model, optimizer)
    start = torch.tensor(firsts)

    def step(ids: Tensor, labels: Tensor) -> Tensor:
        loss = F.binary_cross_entropy_with_logits(model(ids + start, torch.ones(ids.shape)), labels)
        update.zero_grad()
        loss.backward()
        update.step()
        return loss.detach()

    return step


# RecBole's AutoInt: four maps a block, with biases and without norm, a deep part, a linear term.
LIKE_RECBOLE = {
    "qkv_bias": True, "scale": True, "linear_term": True, "deep_widths": (128, 128),
}  # fmt: skip


def adam(parameters: Iterable[nn.Parameter], lend: bool = False) -> torch.optim.Adam:
    """torch's Adam as it comes, or the fused one lent to a peer."""
    return torch.optim.Adam(parameters, lr=1e-3, fused=lend or None)


def plain_step(model: Callable[[Tensor], Tensor], update: torch.optim.Optimizer) -> Step:
    def step(ids: Tensor, labels: Tensor) -> Tensor:
        loss = F.binary_cross_entropy(model(ids).reshape(-1), labels)
        update.zero_grad()
        loss.backward()
        update.step()
        return loss.detach()

    return step


def fuxictr(shape: Shape, width: int = 64, *, clip: bool = True, lend: bool = False) -> Step:
    """FuxiCTR's train_step, which clips the gradient; or its layers without that."""
    model = fuxictr_model(shape, width)
    if lend:
        model.optimizer = adam(model.parameters(), lend)
    if not clip:

        def forward(ids: Tensor) -> Tensor:
            return model({name: ids[:, i] for i, name in enumerate(shape.names)})["y_pred"]

        return plain_step(forward, model.optimizer)
    model._max_gradient_norm = 10.0  # `fit`'s default

    def step(ids: Tensor, labels: Tensor) -> Tensor:
        batch = {name: ids[:, i] for i, name in enumerate(shape.names)}
        return model.train_step(batch | {"label": labels}).detach()

    return step


def fuxictr_model(shape: Shape, width: int = 64):
    """FuxiCTR's layers on its base model, joined as its AutoInt is, without a deep part."""
    from fuxictr.pytorch.layers import FeatureEmbedding, ScaledDotProductAttention
    from fuxictr.pytorch.models import BaseModel

    fields = fuxictr_features(shape)

    class Block(nn.Module):
        def __init__(self, before: int):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(before, width, bias=False) for _ in range(3))
            self.residual = nn.Linear(before, width, bias=False) if before != width else None
            self.attention = ScaledDotProductAttention()

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (
                part(x).unflatten(-1, (shape.heads, -1)).transpose(1, 2)
                for part in (self.q, self.k, self.v)
            )
            y, _ = self.attention(q, k, v)
            y = y.transpose(1, 2).contiguous().flatten(2)
            return (y + (x if self.residual is None else self.residual(x))).relu()

    class AutoInt(BaseModel):
        def __init__(self):
            super().__init__(
                fields, eval_steps=10**9, verbose=0, model_root="fuxictr", metrics=["AUC"]
            )
            self.embedding = FeatureEmbedding(fields, shape.dim)
            self.blocks = nn.Sequential(
                *(Block(shape.dim if i == 0 else width) for i in range(shape.blocks))
            )
            self.out = nn.Linear(shape.fields * width, 1)
            self.compile("adam", "binary_crossentropy", 1e-3)
            self.reset_parameters()

        def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            x = self.embedding(self.get_inputs(inputs))
            return {"y_pred": self.output_activation(self.out(self.blocks(x).flatten(1)))}

        def load_weights(self, checkpoint: str):
            """`fit` ends with the best weights of its evaluations, of which there are none."""

    return AutoInt()


def fuxictr_features(shape: Shape):
    """The fields as FuxiCTR describes them."""
    from fuxictr.features import FeatureMap

    fields = FeatureMap("bench", "/tmp")
    fields.features = OrderedDict(
        (name, {"source": "", "type": "categorical", "vocab_size": shape.size, "padding_idx": None})
        for name in shape.names
    )
    fields.num_fields, fields.labels = shape.fields, ["label"]
    return fields


def deepctr(shape: Shape, *, lend: bool = False) -> Step:
    """DeepCTR-Torch's AutoInt without a deep part; its width must equal the embeddings'."""
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import AutoInt

    columns = [SparseFeat(name, shape.size, embedding_dim=shape.dim) for name in shape.names]
    model = AutoInt(
        columns, columns, att_layer_num=shape.blocks, att_head_num=shape.heads,
        dnn_hidden_units=(), l2_reg_embedding=0, device="cpu",
    )  # fmt: skip
    inner = plain_step(model, adam(model.parameters(), lend))
    return lambda ids, labels: inner(ids.float(), labels)


def rechub(shape: Shape, *, lend: bool = False) -> Step:
    """torch-rechub's AutoInt without a deep part; its width must equal the embeddings'."""
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models.ranking import AutoInt

    features = [SparseFeature(name, shape.size, embed_dim=shape.dim) for name in shape.names]
    model = AutoInt(
        sparse_features=features, dense_features=[], num_layers=shape.blocks,
        num_heads=shape.heads, dropout=0.0, mlp_params=None,
    )  # fmt: skip

    def forward(ids: Tensor) -> Tensor:
        return model({name: ids[:, i] for i, name in enumerate(shape.names)})

    return plain_step(forward, adam(model.parameters(), lend))


def recbole(shape: Shape, width: int = 64) -> Step:
    """RecBole's AutoInt on its FMEmbedding, with the deep part and linear term it always has."""
    import numpy as np
    from recbole.model.context_aware_recommender.autoint import AutoInt
    from recbole.model.layers import FMEmbedding, MLPLayers

    offsets = np.arange(shape.fields) * shape.size

    class Model(AutoInt):
        def __init__(self):
            nn.Module.__init__(self)
            self.dropout_probs, self.has_residual = (0.0, 0.0, 0.0), True
            self.num_feature_field, self.embedding_size = shape.fields, shape.dim
            self.embed_output_dim = shape.fields * shape.dim
            self.atten_output_dim = shape.fields * width
            self.table = FMEmbedding([shape.size] * shape.fields, offsets, shape.dim)
            self.first = FMEmbedding([shape.size] * shape.fields, offsets, 1)
            self.att_embedding = nn.Linear(shape.dim, width)
            self.mlp_layers = MLPLayers([self.embed_output_dim, 128, 128], dropout=0.0)
            self.self_attns = nn.ModuleList(
                nn.MultiheadAttention(width, shape.heads) for _ in range(shape.blocks)
            )
            self.attn_fc = nn.Linear(self.atten_output_dim, 1)
            self.deep_predict_layer = nn.Linear(128, 1)
            self.v_res_embedding = nn.Linear(shape.dim, width)
            self.dropout_layer = nn.Dropout(0.0)

        def forward(self, ids: Tensor) -> Tensor:
            out = self.autoint_layer(self.table(ids)).reshape(-1)
            return torch.sigmoid(out + self.first(ids).sum((1, 2)))

    model = Model()
    return plain_step(model, adam(model.parameters()))


class PlainBlock(nn.Module):
    """The official block in plain PyTorch, on torch's fused attention, for peers of tables only."""

    def __init__(self, before: int, width: int, heads: int):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(before, width) for _ in range(4))
        self.norm = nn.LayerNorm(width, eps=1e-8)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v, r = (layer(x).relu() for layer in self.maps)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.norm((y + r).relu())


def torchrec(shape: Shape, width: int = 64, *, fused: bool = False, lend: bool = False) -> Step:
    """torchrec's tables, one per field, under the official blocks in plain PyTorch."""
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor

    tables = [
        EmbeddingBagConfig(
            name=f"t{name}",
            embedding_dim=shape.dim,
            num_embeddings=shape.size,
            feature_names=[name],
        )
        for name in shape.names
    ]
    if fused:
        from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection

        try:
            from fbgemm_gpu.split_embedding_configs import EmbOptimType  # noqa: F401
        except OSError as error:
            raise ImportError(str(error)) from error
        from torchrec.optim import RowWiseAdagrad

        collection = FusedEmbeddingBagCollection(
            tables=tables, optimizer_type=RowWiseAdagrad, optimizer_kwargs={"lr": 1e-3}
        )
    else:
        collection = EmbeddingBagCollection(tables=tables)
    blocks = nn.Sequential(
        *(PlainBlock(shape.dim if i == 0 else width, width, shape.heads)
          for i in range(shape.blocks))
    )  # fmt: skip
    out = nn.Linear(shape.fields * width, 1)

    def forward(ids: Tensor) -> Tensor:
        jagged = KeyedJaggedTensor(
            keys=shape.names,
            values=ids.T.reshape(-1),
            lengths=torch.ones(ids.numel(), dtype=torch.long),
        )
        x = collection(jagged).values().view(len(ids), shape.fields, shape.dim)
        return out(blocks(x).flatten(1)).sigmoid()

    dense = [*blocks.parameters(), *out.parameters()]
    if not fused:
        dense += list(collection.parameters())
    return plain_step(forward, adam(dense, lend))
