"""Studies: one recipe at every point of a grid, on engines that people already run."""
