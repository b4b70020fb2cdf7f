"""One file per backbone: from embedded fields to interaction terms ``[B]`` and tower input ``[B, H0]``."""
