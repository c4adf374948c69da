"""Sweeps: the settings of a training are searched with Optuna."""
