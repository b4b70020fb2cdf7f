"""Candidates: which users are scored on which items in one domain on one date.

A :class:`~mmlora.candidates.policy.Policy` decides. :mod:`.find` reads users, items and exclusions from the
offline store, :mod:`.pair_table` reads the user's own pair table, and :mod:`.retrieval` preselects a user's
best items for the full model. All return :class:`~mmlora.candidates.pairs.Candidates`, and what was removed
and why.
"""
