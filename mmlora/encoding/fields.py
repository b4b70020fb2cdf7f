"""How each kind of field is fitted and encoded.

Every encoder maps an Arrow column of N rows to numbers, treats NaN as missing, and has a ``size`` (which the
model needs) and a ``spec`` (what is stored besides the vocabulary).
"""

from __future__ import annotations

from mmlora.encoding.history import History
from mmlora.encoding.numbers import Standard, StandardFit, Vector, VectorFit, Weights, WeightsFit
from mmlora.encoding.vocabularies import Bag, Vocabulary, VocabularyFit
from mmlora.errors import ContractError
from mmlora.schema import FeatureField

FieldEncoder = Vocabulary | Bag | Standard | Vector | Weights | History

FieldFit = VocabularyFit | StandardFit | VectorFit | WeightsFit


def fitter(field: FeatureField, min_count: int) -> FieldFit:
    """Return the object that fits an encoder for a field.

    Raises:
        ContractError: its kind is reserved for the view `user_history`.
    """
    if field.kind in ("history", "counts"):
        raise ContractError(
            f"field {field.name!r}: the kind {field.kind} is reserved for the view user_history"
        )
    if field.kind == "dense":
        return StandardFit(field)
    if field.kind == "weights":
        return WeightsFit(field)
    return VectorFit(field) if field.kind == "vector" else VocabularyFit(field, min_count)
