import torch

from mmlora.batch import Batch
from mmlora.models.embedding import FieldEmbedding
from mmlora.models.spec import FieldShape

FIELDS = [
    FieldShape("item__tags", "bag", 5),
    FieldShape("user_id", "categorical", 4),
    FieldShape("user__age", "dense", 1),
    FieldShape("item_id", "categorical", 6),
    FieldShape("a.vector", "vector", 2),
]


def made() -> tuple[FieldEmbedding, Batch]:
    torch.manual_seed(1)
    embedding = FieldEmbedding(FIELDS, embedding_dim=3)
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter.normal_()
    batch = Batch(
        categorical=torch.tensor([[3, 0], [1, 5]]),
        dense=torch.tensor([[2.0], [-1.0]]),
        domain=torch.zeros(2, dtype=torch.int64),
        bags={"item__tags": torch.tensor([[2, 4, 0], [0, 0, 0]])},
        vectors={"a.vector": torch.tensor([[1.0, 2.0], [0.0, 0.0]])},
    )
    return embedding, batch


def test_each_field_reads_its_own_rows_of_the_table():
    embedding, batch = made()
    table, projection = embedding.table, embedding.projections[0]
    tags = table[10:]  # after user_id's 4 and item_id's 6
    first = [table[3], table[4 + 0], (tags[2] + tags[4]) / 2, projection(batch.vectors["a.vector"][0])]
    second = [table[1], table[4 + 5], torch.zeros(4), projection.bias]
    expected = torch.stack([torch.stack(first), torch.stack(second)])  # [2, F, D + 1]
    out = embedding(batch)
    torch.testing.assert_close(out.fields, expected[:, :, :3])
    dense = batch.dense[:, 0] * embedding.dense_weight[0]
    torch.testing.assert_close(out.linear, expected[:, :, 3].sum(1) + dense)
    assert torch.equal(out.dense, batch.dense)


def test_padding_a_bag_further_changes_nothing():
    embedding, batch = made()
    longer = torch.nn.functional.pad(batch.bags["item__tags"], (0, 4))
    padded = Batch(batch.categorical, batch.dense, batch.domain, batch.vectors, {"item__tags": longer})
    torch.testing.assert_close(embedding(padded).fields, embedding(batch).fields)


def test_dense_fields_alone_make_a_model():
    embedding = FieldEmbedding([FieldShape("x", "dense", 1)], embedding_dim=3)
    batch = Batch(torch.zeros(2, 0, dtype=torch.int64), torch.ones(2, 1), torch.zeros(2, dtype=torch.int64))
    assert embedding(batch).fields.shape == (2, 0, 3)
