"""Side plans: what to compute once per user, once per item, and per pair, for a model and one domain.

A pair of a user and an item costs only what depends on both of them. :class:`.pair_model.PairModel` is the
entry point. ``flat``, ``products``, ``crossing`` and ``bilinear`` say which terms of each backbone split by
side (:class:`.split.Split`); any other backbone runs its whole forward pass on embeddings that are looked up
once per side (``direct``).
"""
