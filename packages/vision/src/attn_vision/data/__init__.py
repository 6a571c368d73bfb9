"""Image data sets as Lightning data modules."""

from .augmentation import Augmentation
from .digits import Digits
from .image_data import ImageArrays, ImageData
from .image_folder import ImageFolder
from .torchvision_sets import CIFAR10, CIFAR100, FashionMNIST

__all__ = [
    "Augmentation",
    "Digits",
    "CIFAR10",
    "CIFAR100",
    "FashionMNIST",
    "ImageFolder",
    "ImageData",
    "ImageArrays",
]
