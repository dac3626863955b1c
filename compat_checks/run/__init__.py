"""Makes the arrays of a case and calls a library with them."""
