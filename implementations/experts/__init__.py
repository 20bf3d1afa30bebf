"""Mixture-of-experts layers: several feed-forward layers, of which a token uses few."""
