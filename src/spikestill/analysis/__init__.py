"""Measures of a network: accuracy over time, activity, operations."""
