"""Tables of class embeddings, in one piece or in shards."""
