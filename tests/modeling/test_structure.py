"""Copies of modules over the same tensors, or over none."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

from knowundo.modeling.structure import meta_copy, shared_copy


def test_a_shared_copy_has_the_same_storage_and_its_own_flags(toy_base: str) -> None:
    net = AutoModelForCausalLM.from_pretrained(toy_base)
    copy = shared_copy(net)
    own, other = dict(net.named_parameters()), dict(copy.named_parameters())
    assert own.keys() == other.keys()
    assert all(other[n].data_ptr() == own[n].data_ptr() for n in own)
    assert copy.lm_head.weight is copy.model.embed_tokens.weight  # tied, as in the original
    copy.requires_grad_(False)
    assert all(parameter.requires_grad for parameter in own.values())
    copy.model.layers[0].mlp.up_proj = torch.nn.Identity()
    copy.config.use_cache = False
    assert isinstance(net.model.layers[0].mlp.up_proj, torch.nn.Linear)
    assert net.config.use_cache


def test_a_meta_copy_has_shapes_only(toy_base: str) -> None:
    net = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.bfloat16)
    copy = meta_copy(net)
    shapes = {n: (p.shape, p.dtype) for n, p in net.named_parameters()}
    assert {n: (p.shape, p.dtype) for n, p in copy.named_parameters()} == shapes
    assert all(p.is_meta for p in [*copy.parameters(), *copy.buffers()])
    assert not any(p.is_meta for p in [*net.parameters(), *net.buffers()])
