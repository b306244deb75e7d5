"""The layers, one concept a file: rnn, embedding, affine, dropout, loss; `base` holds what they share."""
