"""Synthesizes execution traces: learns the graphs of real traces and generates new ones.

`subgraphs` cuts traces into the graphs that LayerDAG learns, `generation` trains and samples,
`comparison` measures how near the generated graphs are to real ones and what they reveal.
"""
