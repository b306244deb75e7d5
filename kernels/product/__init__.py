"""Matrix products: the tile, packing and blocking around it, the product of one row."""
