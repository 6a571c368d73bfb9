import time

import torch
from pytorch_lightning import LightningDataModule

from core_attn.training import data_folder, loader


class Points(torch.utils.data.Dataset):
    """Sets of five points; the class says whether their mean lies to the right."""

    def __init__(self, size: int, seed: int, jitter: float = 0.0, seconds: float = 0.0):
        self.x = torch.randn(size, 5, 3, generator=torch.Generator().manual_seed(seed))
        self.y = (self.x.mean(1)[:, 0] > 0).long()
        self.jitter, self.seconds = jitter, seconds

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return self.x[index] + self.jitter * torch.randn(5, 3), self.y[index]


class PointsData(LightningDataModule):
    def __init__(
        self,
        size: int = 64,
        batch_size: int = 8,
        jitter: float = 0.1,
        seconds: float = 0.0,
        num_workers: int = 0,
        test_size: int = 32,
        root: str | None = None,
    ):
        super().__init__()
        self.test_size = test_size
        self.size, self.batch_size, self.num_workers = size, batch_size, num_workers
        self.jitter, self.seconds, self.root = jitter, seconds, root

    def setup(self, stage):
        if self.root is not None:
            data_folder(self.root)

    def train_dataloader(self):
        train = Points(self.size, 0, self.jitter, self.seconds)
        return loader(train, self.batch_size, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self):
        return loader(Points(32, 1), self.batch_size, shuffle=False)

    def test_dataloader(self):
        return loader(Points(self.test_size, 2), self.batch_size, shuffle=False)

    predict_dataloader = test_dataloader
