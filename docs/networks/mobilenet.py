"""torchvision's MobileNetV3, for images in colour, with all its widths multiplied by one number."""

from torchvision.models import mobilenet_v3_small


def network(trial, input_shape, n_classes):
    return mobilenet_v3_small(
        num_classes=n_classes,
        width_mult=trial.suggest_float("width_multiplier", 0.05, 1.0),
        reduced_tail=True,
        dropout=trial.suggest_float("dropout", 0.0, 0.3),
    )


def scaled(values, factor):
    return {**values, "width_multiplier": values["width_multiplier"] * factor}
