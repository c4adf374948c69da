"""Dataflow graphs of real and generated programs, and their conversion to runnable programs."""
