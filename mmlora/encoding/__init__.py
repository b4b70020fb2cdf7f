"""Encoding: from a contract's Arrow columns to the numbers that a model reads; encoders are storable."""

from mmlora.encoding.encoder import EncodedColumns, Encoder, Shape, Side

__all__ = ["EncodedColumns", "Encoder", "Shape", "Side"]
