"""Configurations of one's own program: enumerated or given, and the best of them as raw data.

NumPy and protobuf only.
"""
