"""A next-token model over a hundred thousand classes, trained with Keras `fit`."""
