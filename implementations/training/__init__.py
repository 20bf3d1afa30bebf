"""Training: optimisers that must lower the loss of a deep autoencoder, at equal steps and at equal FLOPs."""
