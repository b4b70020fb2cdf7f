"""A judge beside each model: what a user would pick instead, on the very same test rows.

It stands between evaluation and registration. Baselines are trained on the model's own training rows,
choose their settings on its validation rows and meet it on its test rows. What comes of it is a table and a
sentence.
"""
