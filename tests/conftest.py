"""Shapes and types of the whole library are checked while the tests run."""

from jaxtyping import install_import_hook

hook = install_import_hook("looped", "beartype.beartype")
