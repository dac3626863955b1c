"""The full softmax: loss, ranks and top k over all classes, in chunks of classes."""
