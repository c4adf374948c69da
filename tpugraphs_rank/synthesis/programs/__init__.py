"""Dataflow graphs that become runnable programs."""
