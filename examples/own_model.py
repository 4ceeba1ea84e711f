"""A model of your own, from training to a file: train an ANN, distil a spiking network, evaluate, export, replay."""

import sys
from pathlib import Path

import torch
from torch import nn

import spikestill as ss

torch.manual_seed(0)
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own-model")
data = ss.data.load("digits", validation=0.1)
scale = {"mean": data.mean, "std": data.std}


def layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


ann = nn.Sequential(layer(1, 16), nn.AvgPool2d(2), layer(16, 32), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 10))
optimiser = torch.optim.Adam(ann.parameters(), lr=0.01)
batches = ss.data.Batches(data.train, batch_size=64, shuffle=True, **scale)
for _ in range(8):
    for images, labels in batches:
        optimiser.zero_grad()
        nn.functional.cross_entropy(ann(images), labels).backward()
        optimiser.step()

snn = ss.to_spiking(ann, neuron=ss.LIF(leak=0.5, reset="hard"), timesteps=4, input_shape=data.input_shape)
ss.distill(student=snn, teacher=ann, objectives=["cross-entropy", "logits"], epochs=8, out=str(folder), overwrite=True)

test = list(ss.data.Batches(data.test, batch_size=500, **scale))
print(f"ANN {ss.analysis.accuracy(ann.eval(), test):.1%}, SNN at each step {ss.evaluate(snn, test).accuracy}")
path = ss.export.to_nir(snn).write(folder / "student.nir")
print(f"{path}: {ss.export.replay(ss.export.folded(snn), ss.export.from_nir(path), test[0][0][:8])}")
