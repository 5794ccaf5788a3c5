"""Gradient descent on named loss parts, resumable to the same bits."""
