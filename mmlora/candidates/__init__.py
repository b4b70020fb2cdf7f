"""Candidates: who is scored on what in one domain on one date.

A :class:`~mmlora.candidates.policy.Policy` says it. :mod:`.find` reads users, items and exclusions from the
offline store, :mod:`.pair_table` a table of the user's own, and :mod:`.retrieval` keeps a user's best items
before the full model. All give :class:`~mmlora.candidates.pairs.Candidates`, and what was removed and why.
"""
