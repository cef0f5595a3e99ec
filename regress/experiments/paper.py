"""The released lists of AQA-7, known by a digest of each sample and by nothing else.

Conventions: a sample's digest is the first four hexadecimal digits of the SHA-256 of
its line (key, split, score with two decimals); an action's digests stand in the order
of its sample numbers, from 1. One digest says little, a list of them says whose list
it is: counts alone would not do, other data sets may be laid out with the same ones.

What the paper printed: the numbers of its Tables 2 to 4.

Conventions: Spearman's rho, one value an action in the order of
`EXPERIMENT_ACTIONS` (diving, vault, skiing, snowboard, synchronised 3 m and 10 m);
`nan` where the table has none. They are facts about AQA-7 alone: a report shows them
only beside samples of the released lists (`released`).
Source: Parmar and Morris, "Action Quality Assessment Across Multiple Actions".
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from math import nan

Sample = tuple[str, str, float]

DIGITS = 4
DIGESTS = {
    "diving": (
        "d0c6be5c48e8744b1f87d8d30b8faa26d19edba4c8347064e8568b47ae4f6f36b69f337b"
        "dc07375a0e7b829896c4aeba32a52ec5c1579a0afe1bc2bc2504adaa6a0a29860b0dce11"
        "019bc77f311f9fe585cd604fb7b043895d4ffd1720bbeabb1e9104b019780f07f2893fbf"
        "4396d5389abcc5ec59f17f5ea318246d50991d225171d6c07e9bf026d62768c1cf6a6915"
        "2cbe910ac23005f4cb3eb93d392bc220167f19dc9bbfe0f59f7e17df3f9a5648756eabc0"
        "f7cc69d4620b285b1988dde1134a8adfb9aa9eb6cae4d071d28bf7e9b34d020592a1c30d"
        "e21df46b130e54dddaacac0da806faee47f94dae643917da362bdc77e9f74d196b73626d"
        "c84f743f09814a9ef3876d0f0a2dbcc9661a22a0e559c2ec9f2d94e6c7c1e727b0a03197"
        "5bfcddce113c6dc7760f0308852737131050427955225ee071c40f063ff1fe39e5cdd896"
        "84b72c7c3114f6b12ca9c963550b8bef56bcbb6bd946962e75b8fa75deb55c0d920fc43a"
        "93ef89fc68bc0ff68bb7d5a271b5769d2fd21e72d0a04247baa7970f8ab62f4b572ebc43"
        "721457798e0a3f78abb70fbe9288f5ceb6651771c8df55f15b95e76843bc10667700e36a"
        "28a3f22f314fd1acf9a2c77460c7e9d55b28bd1dd9e81e6be5994db0437f688f85a68393"
        "a220dfa31d2056c6f7072e8626df023897cf5b48f1858560a5e711f45f308f81d772916f"
        "05847630586f4bd775ac68d48c5ca98eb0ef7bbc3f3a3bda5b58560e61642d215b4bd1f3"
        "ce784e9f6e972aa8d9885f873f85d6f2288a91a469bdf5698439a751e9364a4a72345b99"
        "250af5d4f0f2cb8a24180517c69eaa13fc6f564a2252cb5277e846131eef6a727de56760"
        "75f17db945631b3608ea381806571592756c50846c50369e214936eae7050c95b0c89d94"
        "db8a92a3447512d9559c786b2feead70d0b1539e0632babfbda6356e5a6b07c3daf37ef7"
        "58a407b63815fec130f4018df2cbf7d762f9f69a3fdb453ec14d53bdaa998cb0aff0a531"
        "de09e0bf0f453c381682c959d68cec79e8b72ad8"
    ),
    "gym_vault": (
        "6ef1cfb75b875e93309d81e1c37ba424e3463c9bb946e353c0547ca9a4fa3358f684875c"
        "1c4337195e066dea9d2654d5c2589962f77b5531250a8af1ea058cf378f3a0189779ca7c"
        "e6013b8c96658e681b4fa525f71eba0d7758fee7d55b92c2f0c7eceed3266d4ef84b1f3f"
        "a8d3f62a0263a8c8e5daa79a9b04ec2b485fcb39de3cc15d5fe72410fae08ae5352ff262"
        "27cb0178684e0c57fdb59ddc11aa13ac75b05244e71a5705731aba17508e516092e701c3"
        "45c09aae6d439d2e3211f634b0d3eb2772e78826ab7e19ef30d0c2073434233b618ce5c4"
        "5e6ac451dc29129a6fce60d10dd7ce676300937332633acf221d70ffcd5d2ca4f3fbda1e"
        "49a3ed6e3e3906c4dd558310f8f48a6731ef191205d13fcac2d4f15cde45d783f2b6c8b0"
        "5f822cf06f77d0511b73f31cbad98ebdf715c544d7f1e751a8667041974cbda36dbb8002"
        "d2d45279c1a85cb1ead3467eac08e6060e2b2630841e2a1a44b44a5c"
    ),
    "ski_big_air": (
        "0d38cbe8e8af3d0f02376247c84481ec376e56cd88f3053d57f72b3ce5ca61f01961e9a5"
        "b327719547614ec5958fca6af5aa9185f1602f6ce1737c69f1f3117c6570364bb597ee62"
        "932723a75f6e32510a411978d25a4c6b57588ff1a8112456aca3ea419b547887daa941d8"
        "21d9c35dbc2cc3ebdf176e707074ad820c315e12ed1944c8be6c16085bff97c6dedaf5eb"
        "6962aa838f21c8702c987094a6e64be4e8a0b1a4bc37cd310fad468562591875653aa139"
        "241174f636b7bb4821eef22553e11f94dbd8780d81da119a9f1ac7da80bb71aa0e4d5669"
        "2c5628a06a379a9193aba8b96b39c9657af1a23864481264364a8c5326031b847b3e45c7"
        "e634e57f69503a705889009392d3157c3c9e3b9f9bae805448a6ccb9ce8fb10a86948075"
        "b27c985580b2822cf21af3a3cca31578dfd25d450d0720215d26ded4a2e899f2580083c0"
        "24a8b6c85ef3eec6414d307ebf99fb4b741d3c7b8a996ac610dd"
    ),
    "snowboard_big_air": (
        "7613dde62dab6ceb0c9790e360ffbb0dce6919dc22aa55118c24fee83a4e3f41f17ce21c"
        "69d4f8af926a67de2d86e1039c82f2e11d68f5632e57c38f6642af17f3d0281adac804d3"
        "0e9c0af218d1d81804e69ed5d9c059c1e1159cec13a0d03371041f781ccfa1cbd0910a0f"
        "220ed1294afea9e69e5a4cecb7c61bd5ea0ee760a1cb617da960ae5a9d9fc90be9fe23e1"
        "45d5e2b746dbbf91a9a7f00df078372fe550aa75b5062ce1019d6d54774398ad507fe1d2"
        "cd3688b3280e956196f654cc584831b9ff71dcdaf31bac4afa317c8a627f08bfab6ffebe"
        "585e767051176d98f6f7098ccd04711f8a59971a27c4e69938aca853b8e1f75f981110aa"
        "c97fb325674a7741303589bb10057f0fb40110f5bb4709911b4df04cb4ba221bf8612f23"
        "5fbf476a74bd844be2c45b24ea93f6200dd4b0ecf30ce63ce64ac1cf86696f9fb5c8db96"
        "0e8bdb541b721ed36c31b9288191762bed6620f78ac77acd9cbd998a0c5cd09b808c224e"
        "b6ae85cc6a0301d9723b2858e039bf3c7be28bbcc517ae4007814333882c0a5ba564509e"
        "e678a8bf220f764471c52da0fb4360d7"
    ),
    "sync_diving_3m": (
        "bd7241b99510f131b85bc9e18ce41f9a1ede2892085943b7a415a9724718103f81b667da"
        "a40ab27277d375a0292f53899f5bc76110d40fa454b42112dcb54079f4b8db8cf6e71523"
        "daa74a4d30a9bac01382d152699204f87ae26c4202ce441f5cf81cb830b7d97e9f438e82"
        "e9030d86b12622d311d0bc485f3bbbb5621179db88c7cbd6d3039b91f47c01d63c0aa9d3"
        "95b4a41cbbff9a0b0d7981a2e010d6c4c4da91f20c44d27d83f95a790871a40d"
    ),
    "sync_diving_10m": (
        "a8e2c1f644631d19ef4a0771c487fa7e0739df890c40dad5462c5e5e972ddc4dcb2b06fd"
        "447f4a952c896d115b58087c579f4347ed34551900d0dce8750b9d93e1787e7490e00114"
        "ab6ec86f9f4aad6a3755acad081fe2a7cf90f55cb7c60708b4b639b065e7c3eb6271b5ee"
        "39fab6c38607c8b214cac6160da3e70c2fe11f87577e67079347a150be18a1629e6c6fac"
        "dc75aa49c6f447daa8144016d83bdf529c1f60822a97bcfc5df19a92ca2c6b6c2d2f05a4"
        "8e26"
    ),
}


def listed(action: str) -> int:
    """How many samples of an action were released."""
    return len(DIGESTS.get(action, "")) // DIGITS


def unlisted(action: str, samples: Iterable[Sample]) -> list[str]:
    """Keys of those samples (key, split, score) that are not in the released lists."""
    return [sample[0] for sample in samples if not _is_listed(action, *sample)]


def digest(key: str, split: str, score: float) -> str:
    """A sample's digest."""
    line = f"{key},{split},{score:.2f}\n"
    return hashlib.sha256(line.encode()).hexdigest()[:DIGITS]


def _is_listed(action: str, key: str, split: str, score: float) -> bool:
    name, _, number = key.rpartition("/")
    if name != action or not (number.isdecimal() and len(number) < 5):
        return False
    place = DIGITS * (int(number) - 1)
    known = DIGESTS.get(action, "")[max(place, 0) : place + DIGITS]
    return known == digest(key, split, score)


SOURCE = (
    'Parmar and Morris, "Action Quality Assessment Across Multiple Actions", Table {}'
)


@dataclass(frozen=True)
class Printed:
    """One row of a table: `average` is the number printed, however it was formed."""

    per_action: tuple[float, ...]
    average: float


#: Rows whose heads learnt from several actions: with other actions they are others.
OF_MANY = ("all-action LSTM", "multi-action")

#: The row of Table 2 that no C3D feature went into.
POSES = "Pose+DCT"

#: Their averages are Fisher's z.
TABLE_2 = {
    POSES: Printed((0.5300, nan, nan, nan, nan, nan), nan),
    "single-action SVR": Printed(
        (0.7902, 0.6824, 0.5209, 0.4006, 0.5937, 0.9120), 0.6937
    ),
    "single-action LSTM": Printed(
        (0.6047, 0.5636, 0.4593, 0.5029, 0.7912, 0.6927), 0.6165
    ),
    "all-action LSTM": Printed(
        (0.6177, 0.6746, 0.4955, 0.3648, 0.8410, 0.7343), 0.6478
    ),
}

#: Their averages are arithmetic, whatever the caption says, and leave the diagonal
#: (trained and tested on the same action) out.
TABLE_3 = {
    "random": Printed((0.0590, 0.0280, -0.0602, -0.0703, -0.0146, -0.0729), -0.0218),
    "diving": Printed((0.6997, -0.0162, 0.0425, 0.0172, 0.2337, 0.0221), 0.0599),
    "gym_vault": Printed((0.0906, 0.8472, 0.0517, 0.0418, -0.1642, -0.3200), -0.0600),
    "ski_big_air": Printed((0.2653, -0.1856, 0.6711, 0.1807, 0.1195, 0.2858), 0.1331),
    "snowboard_big_air": Printed(
        (0.2115, -0.2154, 0.3314, 0.6294, 0.0945, 0.1818), 0.1208
    ),
    "sync_diving_3m": Printed(
        (0.1500, -0.0066, -0.0494, -0.1102, 0.8084, 0.0428), 0.0053
    ),
    "sync_diving_10m": Printed(
        (0.0767, -0.1842, 0.0679, 0.0360, 0.4374, 0.7397), 0.0868
    ),
    "multi-action": Printed((0.2258, 0.0538, 0.0139, 0.2259, 0.3517, 0.3512), 0.2037),
}

#: rho by action for the small, the middle and the large training set; each the best
#: over all evaluated iterations, chosen on the test samples.
TABLE_4 = {
    "random": {
        "diving": (0.5633, 0.5952, 0.6935),
        "gym_vault": (0.3197, 0.4231, 0.5278),
        "ski_big_air": (0.0955, 0.5050, 0.5862),
        "snowboard_big_air": (0.1813, 0.4507, 0.4751),
        "sync_diving_3m": (0.2659, 0.3382, 0.4268),
        "sync_diving_10m": (0.3511, 0.4913, 0.6305),
    },
    "multi-action": {
        "diving": (0.5937, 0.6742, 0.7443),
        "gym_vault": (0.4509, 0.5350, 0.5894),
        "ski_big_air": (0.1279, 0.5778, 0.5991),
        "snowboard_big_air": (0.1978, 0.3347, 0.4437),
        "sync_diving_3m": (0.5235, 0.5980, 0.7429),
        "sync_diving_10m": (0.4500, 0.7900, 0.8123),
    },
}
