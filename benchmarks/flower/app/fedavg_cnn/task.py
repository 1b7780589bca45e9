"""The model, its training, and the data of a device."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

MOMENTUM = 0.9


class Net(nn.Module):
    """The family `cnn-m`: two stages of 3x3 convolution and 2x2 maximum, 64 features, 48 hidden, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(12, 24, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.embed = nn.Linear(24 * 7 * 7, 64)
        self.tail1 = nn.Linear(64, 48)
        self.tail2 = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = torch.relu(self.embed(torch.flatten(x, 1)))
        return self.tail2(torch.relu(self.tail1(x)))


def load_data(path: str, batch_size: int) -> DataLoader:
    """Return the images of this device, 0 to 1, in random batches."""
    with np.load(path) as rows:
        images = torch.from_numpy(rows["x"].astype(np.float32) / 255)
        labels = torch.from_numpy(rows["y"])
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size, shuffle=True)


def train(net: Net, loader: DataLoader, epochs: int, lr: float) -> float:
    """Train, and return the mean loss of the last epoch."""
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=MOMENTUM)
    net.train()
    total = 0.0
    for _ in range(epochs):
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / len(loader)
