"""Evaluates synthetic graphs: similarity to real graphs, and usefulness for training surrogates."""
