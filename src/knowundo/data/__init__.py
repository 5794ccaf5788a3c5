"""Records, benchmarks and lists, and their encoding into batches of token ids."""
