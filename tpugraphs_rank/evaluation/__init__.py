"""How well a ranker does: a row a graph, aggregates, baselines, intervals, tables and plots."""
