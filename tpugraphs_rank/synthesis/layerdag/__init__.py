"""LayerDAG, a generative model of directed acyclic graphs (arXiv 2411.02322)."""
