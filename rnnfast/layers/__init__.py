"""The layers, one concept per file: rnn, embedding, affine, dropout, loss; `base` holds the shared parts."""
