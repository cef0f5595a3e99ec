"""Files made worse: by chance, by what parsers stumble over, by what is an attack."""

import random
import struct

#: Lengths, counts and offsets that lie.
NUMBERS = (
    *(0, 1, 127, 128, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40),
    *(2**63 - 1, 2**63, 2**64 - 1),
)
#: What does not belong into a key, a path, a number or a line; `{secret}` is a file
#: outside of the folder, and `link` a link to it.
TOKENS = (
    *("", "..", "../secret", "a/../../secret", "{secret}", "link", "folder/secret"),
    *("/etc/passwd", "C:\\x", "a\\b", "//host/share", "file:{secret}", "http://a/b"),
    *("\0", "\x1b[2J", "\r", "\n", "\u202e", "\u2028", "\ufeff", "\ud800", "=1+1"),
    *('"', "'", ",", ",,", ";", "#", "-", "nan", "-inf", "1e999", "-1", "0x10", "1_0"),
    *("9" * 400, "a" * 5000, "[" * 5000, '{"a":' * 500, "é" * 300, "٣", "1" * 5000),
    *("train", "test", "diving", "../diving", "<script>", "%s%n", "${HOME}", "`id`"),
)


def tokens(secret: str) -> list[str]:
    return [token.replace("{secret}", secret) for token in TOKENS]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """Damage as disks and transfers do it, always to another content."""
    made = bytearray(data)
    at = rng.randrange(len(made))
    kind = rng.choice(["bit", "byte", "zeros", "noise", "cut", "empty", "moved"])
    if kind == "bit":
        made[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        made[at] = (made[at] + rng.randrange(1, 256)) % 256
    elif kind in ("zeros", "noise"):
        size = min(rng.choice([4, 40, 512, 4096]), len(made) - at)
        made[at : at + size] = bytes(size) if kind == "zeros" else rng.randbytes(size)
    elif kind == "cut":
        del made[at:]
    elif kind == "empty":
        made.clear()
    else:
        made[at:at] = made[at : at + rng.randrange(1, 600)]
    return bytes(made)


def mutate(data: bytes, rng: random.Random, words: list[str]) -> bytes:
    """Up to four changes of a file, most of them where headers lie: at its ends."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not made:
            break
        near = min(4000, len(made))
        at = rng.choice(
            [rng.randrange(near), len(made) - 1 - rng.randrange(near)]
            + [rng.randrange(len(made))]
        )
        kind = rng.randrange(7)
        if kind == 0:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            made[at] = rng.randrange(256)
        elif kind == 2:
            form = rng.choice("BHIQ")
            size = struct.calcsize(form)
            number = rng.choice(NUMBERS) % (1 << 8 * size)
            made[at : at + size] = struct.pack(rng.choice("<>") + form, number)
        elif kind == 3:
            word = rng.choice(words).encode("utf-8", "surrogatepass")
            made[at : at + rng.choice([0, len(word)])] = word
        elif kind == 4:
            del made[at : at + rng.randrange(1, 200)]
        elif kind == 5:
            other = rng.randrange(len(made))
            made[at:at] = made[other : other + rng.randrange(1, 200)]
        elif rng.random() < 0.3:
            del made[at:]
    return bytes(made)


def rows(header: str, good: list[list[str]], rng: random.Random, words) -> bytes:
    """A CSV most of whose cells are good, and some of them hostile."""
    lines = [header if rng.random() < 0.9 else rng.choice(words)]
    for _ in range(rng.choice([0, 1, 2, 5, 50])):
        cells = list(rng.choice(good))
        for place in range(len(cells)):
            if rng.random() < 0.3:
                cells[place] = rng.choice(words) + rng.choice(["", cells[place]])
        lines.append(",".join(cells))
    text = rng.choice(["\n", "\r\n"]).join(lines)
    return text.encode(
        rng.choice(["utf-8"] * 8 + ["utf-16", "utf-8-sig"]), "surrogatepass"
    )
