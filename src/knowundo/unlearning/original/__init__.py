"""`compat: original`: what the public KnowUnDo code does otherwise than the paper."""
