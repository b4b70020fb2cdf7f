"""Side plans: of a model and one domain, what to compute once a user, once an item, and what a pair.

A pair of a user and an item costs what neither of them decides alone. :class:`.pair_model.PairModel` is the
way in. ``flat``, ``products``, ``crossing`` and ``bilinear`` say which terms of each backbone split by side
(:class:`.split.Split`); a backbone that none of them knows takes its whole forward pass on embeddings that
were looked up once a side (``direct``).
"""
