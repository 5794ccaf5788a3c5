"""Planted truth: models whose scopes were learned in known tensors, and scores of localizers."""
