"""Thresholds and weights of a spiking network from a trained ANN, one file a method."""
