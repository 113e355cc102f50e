"""The network of the peers, as TorchServe's archiver wants it: one class without arguments."""

from torchvision.models.resnet import Bottleneck, ResNet


class ResNet50(ResNet):
    """ResNet-50 with 1,000 classes."""

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3])
