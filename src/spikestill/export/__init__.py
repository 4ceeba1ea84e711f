"""Exchange with other tools: NIR, ONNX and SpikingJelly, which no other floor knows."""

from spikestill.export.nir_reading import from_nir
from spikestill.export.nir_writing import to_nir
from spikestill.export.onnx_writing import Predictions, replay_onnx, to_onnx
from spikestill.export.replay import Replay, folded, replay
from spikestill.export.spikingjelly import from_spikingjelly, to_spikingjelly

__all__ = [
    "Predictions",
    "Replay",
    "folded",
    "from_nir",
    "from_spikingjelly",
    "replay",
    "replay_onnx",
    "to_nir",
    "to_onnx",
    "to_spikingjelly",
]
