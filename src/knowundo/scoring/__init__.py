"""What a model predicts and answers on every record."""
