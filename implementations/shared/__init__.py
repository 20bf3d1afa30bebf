"""What several areas share: networks, corpora, and their cost formulas."""
