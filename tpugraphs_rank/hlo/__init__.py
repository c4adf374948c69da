"""Converts XLA programs (HLO) and raw measurements to the arrays of graph files.

Needs NumPy and protobuf only.
"""
