"""Which tensors hold the unlearn scope and not the retention scope."""
