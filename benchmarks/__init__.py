"""Time and memory of spikestill beside SpikingJelly, snnTorch, a two-pass scheme and the ANN: see ``__main__``."""
