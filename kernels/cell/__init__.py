"""What a cell is: formulas as graphs, their gradients, and the passes made from them."""
