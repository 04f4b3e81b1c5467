"""The recipe of the tiny detector."""

from transformers import MMGroundingDinoForObjectDetection

from scripts.train_tiny.detector import network


def test_the_network_stays_small_and_has_no_randomness_when_trained():
    model = MMGroundingDinoForObjectDetection(network())
    # With BERT's own 30,522 words in place of the thousand that are written for it.
    rows = model.model.text_backbone.embeddings.word_embeddings.weight
    assert sum(value.numel() for value in model.parameters()) - rows.numel() < 1_600_000
    assert {module.p for module in model.modules() if type(module).__name__ == "Dropout"} <= {0.0}
    assert network().fusion_droppath == network().dropout == network().backbone_config.drop_path_rate == 0.0
