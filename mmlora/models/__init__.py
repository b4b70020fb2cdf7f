"""The networks: embeddings, backbones, low-rank experts and the gate that mixes them. Pure torch, no I/O."""
