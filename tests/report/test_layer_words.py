"""What is said of two stacks or models on the same tokens."""

from src.report.geometry.layers.words import comparison_sentence


def record(site, layer, **values):
    at = {"hook": "resid_post", "layer": layer, "site": site}
    return {"first": site, "second": site, "cka": 0.7, "shuffled_cka": 0.06, **at, **values}


def test_models_of_other_widths_have_a_cka_and_no_cosine():
    said = comparison_sentence([record("resid_post.0", 0), record("resid_post.5", 5, cka=0.856)], "base", "small")
    assert said == (
        "The CKA of base and small on the same tokens is 0.7 at resid_post.0 and 0.856 at resid_post.5 (other tokens "
        "of the same text: 0.06 and 0.06)."
    )


def test_models_of_one_width_have_both():
    cosines = {"cosine": 0.5, "shuffled_cosine": 0.1, "cosine_low": 0.4, "cosine_high": 0.6}
    said = comparison_sentence([record("resid_post.0", 0, **cosines)], "base", "chat")
    assert said.startswith("The same token in base and chat has a cosine of 0.5 at resid_post.0 and of 0.5")
    assert ". The CKA of base and chat on the same tokens is 0.7" in said
