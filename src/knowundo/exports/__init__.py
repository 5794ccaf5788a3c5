"""Unlearned models as files that plain transformers and peft load, with a model card."""
