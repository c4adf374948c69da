"""Tasks on many programs as Apache Beam pipelines: `engine.BeamEngine` is a `work.Engine`."""
