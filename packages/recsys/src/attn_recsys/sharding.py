"""Tables dealt out to the processes of a run by torchrec, for those larger than one device."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from .models.embedding import FieldEmbedding


class ShardedTable:
    """A table whose rows lie in all processes of the default group, a run of them in each.

    Called by all processes at once, each with its own ids; the gradient of a process's rows is the
    mean over processes, as that of its other weights is.

    Args:
        full: the whole table, the same in every process; it may be freed afterwards.

    Raises:
        ImportError: torchrec is not installed.
        ValueError: its rows are too short or too long for torchrec's kernels.
    """

    def __init__(self, full: Float[Tensor, "rows dim"]):
        try:
            from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
            from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
            from torchrec.distributed.shard import shard
            from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
            from torchrec.distributed.types import ShardingEnv
        except ImportError as error:
            raise ImportError(
                "tables torchrec needs torchrec and fbgemm-gpu (or fbgemm-gpu-cpu)"
            ) from error
        rows, dim = full.shape
        if dim % 4:
            raise ValueError(f"tables torchrec needs a dim that is a multiple of 4, got {dim}")
        config = EmbeddingBagConfig(
            name="table", num_embeddings=rows, embedding_dim=dim, feature_names=["ids"]
        )
        whole = EmbeddingBagCollection([config], device=torch.device("meta"))
        world = distributed.get_world_size()
        plan = construct_module_sharding_plan(
            whole, {"table": row_wise()}, local_size=world, world_size=world,
            device_type=full.device.type,
        )  # fmt: skip
        sharder: Any = EmbeddingBagCollectionSharder()
        env = ShardingEnv.from_process_group(distributed.distributed_c10d._get_default_group())
        self.module: Any = shard(whole, plan, env=env, device=full.device, sharder=sharder)
        self.jagged, self.rows = KeyedJaggedTensor, rows
        [self.weight] = self.module.parameters()
        [table] = self.module.state_dict().values()
        self.first = table.local_shards()[0].metadata.shard_offsets[0]
        with torch.no_grad():
            self.weight.copy_(self.own(full))

    def __call__(
        self, weight: Tensor, index: Int[Tensor, "batch slots"], value: Float[Tensor, "batch slots"]
    ) -> Float[Tensor, "batch slots dim"]:
        """The rows of a batch, times their values."""
        count = torch.tensor(index.numel())
        distributed.all_reduce(count, distributed.ReduceOp.MAX)  # torchrec wants as many of all
        ids = nn.functional.pad(index.reshape(-1).long(), (0, int(count) - index.numel()))
        bags = self.jagged(keys=["ids"], values=ids, lengths=torch.ones_like(ids))  # of one each
        found = self.module(bags).values()[: index.numel()]
        return found.view(*index.shape, -1) * value[..., None]

    def own(self, full: Tensor) -> Tensor:
        """This process's rows of something with one for each row of the table."""
        return full[self.first : self.first + len(self.weight)]

    def whole(self, own: Tensor) -> Tensor:
        """Its counterpart: gathered from all processes, which call it at once, on the CPU."""
        parts: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, own.detach().cpu())
        return torch.cat(parts)

    def whole_states(self, state: Any) -> Any:
        """An optimizer's state with what it keeps of this process's rows for the whole table."""
        return self._changed(state, len(self.weight), self.whole)

    def own_states(self, state: Any) -> Any:
        """Its counterpart, of a checkpoint's."""
        return self._changed(state, self.rows, lambda x: self.own(x).clone())

    def _changed(self, state: Any, length: int, change: Callable[[Tensor], Tensor]) -> Any:
        if isinstance(state, dict):
            return {key: self._changed(x, length, change) for key, x in state.items()}
        if isinstance(state, list):
            return [self._changed(x, length, change) for x in state]
        of_rows = isinstance(state, Tensor) and state.shape == (length, self.weight.shape[1])
        return change(state) if of_rows else state


def shard_tables(model: nn.Module) -> dict[str, ShardedTable]:
    """Deals out the tables of a model, in place; those of one column are copied to every process.

    The model's state dict holds whole tables as before, and takes them.

    Args:
        model: the same in every process.

    Returns:
        The tables, by the names of their weights.
    """
    tables = {}
    for name, part in model.named_modules():
        if not isinstance(part, FieldEmbedding) or part.weight.shape[1] == 1:
            continue
        table = ShardedTable(part.weight.detach())
        part.weight, part.lookup, part.present = table.weight, table, table.whole

        def takes_own(module, state, prefix, *_, table=table):
            key = f"{prefix}weight"
            if key in state and len(state[key]) == table.rows:
                state[key] = table.own(state[key])

        part.register_load_state_dict_pre_hook(takes_own)
        tables[f"{name}.weight"] = table
    return tables


def ignored_by_ddp(module: nn.Module, names: list[str]) -> None:
    """Tells DistributedDataParallel which weights are not copies of each other."""
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)
