"""Examples of parts that extend Hydromel, one module each; docs/extending.md explains them."""
