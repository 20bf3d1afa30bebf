"""Prints while it is imported."""

from .task import Product

print("hello")


class Printing(Product):
    name = "printing"
