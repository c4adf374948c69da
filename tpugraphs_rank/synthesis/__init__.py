"""Synthetic program graphs: generate, evaluate, make runnable, and train on them.

`dags` stores many graphs in one file, `layerdag` is the learned generator, `judging` evaluates
generated graphs against real ones, `programs` turns graphs into runnable programs, and `augment`
trains rankers on them. Modules that import TensorFlow say so in their docstrings.
"""
