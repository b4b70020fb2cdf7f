"""Cross terms: first-order weights and pairwise products of all fields, beside any backbone.

``logit += u W i + u . P_d + i . Q_d + first-order terms + sparse weights``, where ``u`` and ``i`` are the
columns of the user's and the item's inputs (a constant, one-hot small fields, multi-hot small bags, numbers,
vectors) and d is the domain. Values of large fields have sparse weights: their own, one for each domain, and
one for each value of the other side's small fields. It is a degree-2 polynomial model with explicit weights
(Chang et al. 2010, https://jmlr.org/papers/v11/chang10a.html), in a form suited to scoring: for a fixed
domain it is a dot product of a vector for the user and a vector for the item. :mod:`mmlora.training.crosses`
fits it.
"""
