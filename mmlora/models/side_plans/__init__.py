"""Side plans: of a model and one domain, what to compute once a user, once an item, and what a pair.

A pair of a user and an item costs what neither of them decides alone. :class:`.pair_model.PairModel` is the
way in; :mod:`.splits` says which terms of a backbone split by side, and a backbone that it doesn't know
takes the whole forward pass on embeddings that were looked up once a side.
"""
