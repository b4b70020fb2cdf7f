"""PNN with outer products: see :mod:`mmlora.models.backbones.pnn`."""

from functools import partial

from mmlora.models.backbones.pnn import PNN

build = partial(PNN, product="outer")
