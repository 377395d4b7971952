"""What single chapters ask, beside scores: a module for each."""
