"""Figures and pages, from run folders alone."""
