"""The sections of the page, each from the systems that it shows."""

from spikestill.report.sections.answers import answers
from spikestill.report.sections.layers import layers
from spikestill.report.sections.origin import origin
from spikestill.report.sections.overview import Headline, headline, overview
from spikestill.report.sections.steps import steps
from spikestill.report.sections.training import training
from spikestill.report.sections.vision import vision

__all__ = ["Headline", "answers", "headline", "layers", "origin", "overview", "steps", "training", "vision"]
