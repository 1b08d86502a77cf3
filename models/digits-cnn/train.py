"""Train the model of this directory: python train.py

A small convolutional network on scikit-learn's digits, images of 8 × 8 pixels from 0 to 16, exported with PyTorch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

HERE = Path(__file__).parent
STEPS = 400


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Linear(24 * 2 * 2, 10)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layers(image.unsqueeze(1) / 16))
        return scores


class Answer(nn.Module):
    """What is exported: with the digit and the probabilities instead of scores."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.network(image)
        return scores.argmax(1), scores.softmax(1)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = load_digits()
    train, test, kinds, test_kinds = train_test_split(digits.images, digits.target, test_size=0.3, random_state=0)
    images, labels = torch.tensor(train, dtype=torch.float32), torch.tensor(kinds)
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(STEPS):
        rows = torch.randint(len(images), (128,))
        loss = nn.functional.cross_entropy(network(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    answer = Answer(network).eval()
    with torch.no_grad():
        found, _ = answer(torch.tensor(test, dtype=torch.float32))
    print(
        f"accuracy on {len(test)} digits that it has not seen: {(found == torch.tensor(test_kinds)).float().mean():.3f}"
    )
    torch.onnx.export(
        answer,
        (images[:1],),
        str(HERE / "model.onnx"),
        input_names=["image"],
        output_names=["digit", "probabilities"],
        dynamic_axes={name: {0: "images"} for name in ("image", "digit", "probabilities")},
        opset_version=17,
        dynamo=False,  # the other exporter needs one more package
    )


if __name__ == "__main__":
    main()
