"""How the gradients of unlearning and of retention become one: one file each."""
