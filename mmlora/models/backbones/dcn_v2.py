"""DCN with matrices for its cross layers: see :mod:`mmlora.models.backbones.dcn`."""

from functools import partial

from mmlora.models.backbones.dcn import DCN, MatrixCross

build = partial(DCN, cross=MatrixCross)
