"""What the tile and the layout collector share."""
