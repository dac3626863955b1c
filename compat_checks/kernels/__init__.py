"""Which operations of a step have no GPU kernel, and what is read on the host."""
