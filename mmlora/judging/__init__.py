"""Compare each model with what a user could pick instead, on the same test rows.

Judging comes between evaluation and registration. Baselines are trained on the model's training rows, choose
their settings on its validation rows and are compared with it on its test rows. The result is a table and a
sentence.
"""
