"""The files of every data set as their publishers released them: sizes, checksums, addresses."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataFile:
    """One file of a data set as its publisher released it.

    An archive of record files may also be registered by its contents: then every packing of the same records is
    accepted, and so is the folder that it unpacks to.
    """

    name: str
    size: int  # bytes
    sha256: str
    urls: tuple[str, ...]  # tried in this order
    contents: str = ""  # archives.content_hash of the records; size and sha256 are those of one known packing
    folder: str = ""  # accepted in the place of the archive


def _mnist(name: str, size: int, sha256: str) -> DataFile:
    bases = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    return DataFile(name, size, sha256, tuple(base + name for base in bases))


def _physionet(part: str, size: int, sha256: str, contents: str) -> DataFile:
    name = f"{part}.tar.gz"
    url = f"https://physionet.org/files/challenge-2012/1.0.0/{name}"
    return DataFile(name, size, sha256, (url,), contents=contents, folder=part)


# The key, up to a colon, is also the name of the folder that holds the files.
DATASETS: dict[str, tuple[DataFile, ...]] = {
    "mnist": (
        _mnist(
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        _mnist(
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        _mnist(
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        _mnist(
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "physionet2012": (  # sizes and checksums of one packing of the official records; others are known by the contents
        _physionet(
            "set-a",
            6_550_837,
            "8cb9ce1f9c8453cb3e0e2c8b6be5a39d779413424c363c367cec776de06b7510",
            "0c90af4bbb41c696c9a1228b365060193ae852fda62074dfa3fabd93f7ff3ba6",
        ),
        _physionet(
            "set-b",
            6_571_262,
            "402ec2eb689bdffa5d04383fc567d8dfac5f8c51f1ee53411615882f32b5835a",
            "88dfac000fc00be3259de4c45660eed1c604329c57ba2afd707a36f15763ab0a",
        ),
    ),
    "cifar10": (  # the checksum as Torchvision for Ruby and GoMLX print it, each on its own
        DataFile(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        ),
    ),
    "cifar10:subset": (  # found here or on one's own mirror only: nobody publishes it
        DataFile(
            "cifar-10-binary-subset.tar.gz",
            36_841_378,
            "c13af594d1bf405a59f62370547c8037831e5d2dcbe362b550701e998836af26",
            (),
        ),
    ),
}


def folder_name(dataset: str) -> str:
    """Return the name of the folder that a data set lies in; what follows a colon tells apart what shares one."""
    return dataset.partition(":")[0]
