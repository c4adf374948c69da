"""Chakra execution traces, MLCommons' exchange format for machine-learning workloads.

Needs NumPy and protobuf only. `traces` reads and writes files, `graphs` turns traces into the
graphs of `synthesis.dags`, and `exporting` turns graphs into traces that simulators run.
"""
