"""Guards: changes to what a model is asked or answers, one file each; its weights stay."""
