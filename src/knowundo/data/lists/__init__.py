"""Lists that a user brings: files of rows, read as records."""
