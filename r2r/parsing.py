"""Label sets of human parsing: which number means what."""

ATR_18 = (
    "background", "hat", "hair", "sunglasses", "upper-clothes", "skirt", "pants", "dress", "belt", "left-shoe",
    "right-shoe", "face", "left-leg", "right-leg", "left-arm", "right-arm", "bag", "scarf",
)  # fmt: skip
"""ATR: an image's value is the index here; left and right are the person's."""
