"""Evaluation of rankers: metrics per graph, aggregates, baselines, intervals, tables and plots."""
