"""A run in the layout of the KnowUnDo paper's tables."""
