"""What the tile collector and the layout collector share."""
