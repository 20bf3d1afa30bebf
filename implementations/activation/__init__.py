"""Activation sparsity: feed-forward layers in which a token uses few of the neurons, and kernels that skip the rest."""
