"""Training: from a recipe to a run. The only floor that uses Lightning, which is imported when a training starts."""

from spikestill.train.api import distill, train
from spikestill.train.auto import auto
from spikestill.train.measuring import evaluate
from spikestill.train.verifying import verify

__all__ = ["auto", "distill", "evaluate", "train", "verify"]
