import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from core_attn import AttentionLayer
from core_attn.training import Exhibit, Task


class Net(AttentionLayer):
    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        if width % heads:
            raise ValueError(f"heads = {heads} does not divide width = {width}")
        self.num_heads = heads
        self.embed = nn.Linear(3, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.attend(q, k, v).flatten(2)
        return self.head(self.dropout(x).mean(1))


class Classifier(Task):
    monitor, mode = "val/accuracy", "max"

    def __init__(
        self,
        width: int = 8,
        heads: int = 2,
        dropout: float = 0.0,
        lr: float = 1e-2,
        weights: str | None = None,
    ):
        super().__init__()
        self.lr, self.weights = lr, weights
        self.model = Net(width, heads, dropout)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.model(x), y)
        self.log("train/loss", loss, on_step=True, on_epoch=False, sync_dist=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self._measure("val", batch)

    def test_step(self, batch, batch_idx):
        self._measure("test", batch)

    def predict_step(self, batch, batch_idx):
        return self.model(batch[0]).softmax(-1)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        assert self.trainer.estimated_stepping_batches > 0  # asking sets the data up early
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def figures(self, data):
        x, y = next(iter(data.test_dataloader()))
        seen = []
        with torch.no_grad():
            handle = self.model.pattern.register_forward_hook(lambda *call: seen.append(call[2]))
            self.model(x)
            handle.remove()
        figure = Figure(figsize=(4, 2))
        for head, axes in enumerate(figure.subplots(1, 2)):
            axes.imshow(seen[0][0, head])
        caption = "Each head on the first sample; a <b> is escaped."
        numbers = [{"head": i, "largest": float(x.max())} for i, x in enumerate(seen[0][0])]
        yield Exhibit("Attention", caption, figure, numbers)
        yield Exhibit(
            "Samples", "How many there are.", [{"label": 0, "count": int((y == 0).sum())}]
        )
        yield Exhibit("Sound", "", b"RIFF and so on")

    def example_inputs(self):
        return (torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)),)

    def _measure(self, stage, batch):
        x, y = batch
        scores = self.model(x)
        accuracy = (scores.argmax(-1) == y).float().mean()
        loss = F.cross_entropy(scores, y)
        self.log(f"{stage}/accuracy", accuracy, sync_dist=True, batch_size=len(y))
        self.log(f"{stage}/loss", loss, sync_dist=True, batch_size=len(y))
