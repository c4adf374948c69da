"""Directed acyclic graphs made by a model or by a rule, and how near they are to real ones.

`dags` holds many graphs in one file. Graphs of collections, the rule-based family, the distances
and the surrogate's test all work on it; what needs TensorFlow says so in its own docstring.
"""
