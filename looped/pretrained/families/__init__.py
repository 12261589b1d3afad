"""One file for each family of models."""

from looped.pretrained.families import llama

FAMILIES = (llama.FAMILY,)
