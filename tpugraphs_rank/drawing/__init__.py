"""Drawings of program graphs, as SVG and PNG.

    view = views.from_graph(graph, config=3)        # What to draw.
    scene = scenes.arrange(view)                    # Where to draw it.
    scenes.write("program.svg", scene)              # Or .png.

Real programs, .npz graphs and generated graphs have the same look.
"""
