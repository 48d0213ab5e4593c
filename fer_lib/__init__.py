"""Shared code of the compendium: built-in faces, two GANs, a classifier and the ratio study."""
