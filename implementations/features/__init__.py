"""Feature selection: which k columns of a table does a small network need?"""
