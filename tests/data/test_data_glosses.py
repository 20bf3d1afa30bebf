"""From WordNet's lines to sentence vectors: parsing, tokens, the encoder in two ways, and parts that survive an interruption."""

import json
import math
import struct

import numpy as np
import pytest

from effbench import DataError
from effbench.data import glosses, minilm
from effbench.data.wordnet import synset, synsets
from effbench.data.wordpiece import WordPiece, words

LINES = {
    "noun": '00001740 03 n 02 entity 0 living_thing 0 001 ~ 00001930 n 0000 | that which lives; "an entity of its own"; "I"; "one more"  \n',
    "verb": "00001740 29 v 01 breathe 0 000 01 + 02 00 | draw air into the lungs  \n",
    "adj": '00001740 00 a 02 able(p) 0 fit(ip) 1 000 | (usually followed by `to\') having the means; "able to swim"  \n',
    "adv": '00001740 02 r 01 wrongfully 0 000 | in an unjust manner; "able to swim"; "wrongfully dismissed"  \n',
}


@pytest.fixture
def wordnet(tmp_path):
    for part, line in LINES.items():
        (tmp_path / f"data.{part}").write_text("  1 This software\n" + line)
    return tmp_path


def test_synsets_and_their_examples(wordnet):
    found = list(synsets(wordnet))
    assert found[0] == ("entity, living thing: that which lives", 3, ("an entity of its own", "one more"))
    assert found[1] == ("breathe: draw air into the lungs", 29, ())
    assert found[2].text == "able, fit: (usually followed by `to') having the means"
    rows, asked = glosses.texts(wordnet)
    # "able to swim" stands at two synsets: which one it asks for is not known.
    assert len(rows) == 4 and asked == [("an entity of its own", 0), ("one more", 0), ("wrongfully dismissed", 3)]


@pytest.mark.parametrize(
    "line",
    [
        "", "00001740 03 n 02 entity 0 | x", "00001740 45 n 01 entity 0 001 | x", "00001740 03 n 00 000 | x",
        "00001740 03 n 01 entity 0 000 no bar", '00001740 03 n 01 entity 0 000 | "only an example"', "00001740 xx n 01 entity 0 | x",
    ],
)  # fmt: skip
def test_damaged_lines_are_named(wordnet, line):
    with pytest.raises((ValueError, IndexError)):
        synset(line)
    (wordnet / "data.verb").write_text(LINES["verb"] + line + "\n")
    with pytest.raises(DataError, match=r"data\.verb: line 2 is no synset"):
        list(synsets(wordnet))


# ---- tokens


def test_words_are_cut_as_bert_cuts_them():
    assert words("Don't PANIC (4.2)!") == ["don", "'", "t", "panic", "(", "4", ".", "2", ")", "!"]
    assert words("Café naïve\tÅ") == ["cafe", "naive", "a"]
    assert words("a\u200bb \ufffd東京 x…y $5") == ["ab", "東", "京", "x", "…", "y", "$", "5"]
    assert words("~`^_\\|[]{}") == list("~`^_\\|[]{}")


def test_the_short_way_for_ascii_is_the_long_way():
    every = "".join(map(chr, range(32, 127)))
    assert words(f"{every} Word{every}") == words(f"{every} Word{every}\u200b")


@pytest.fixture
def vocabulary(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##able", "##a", "able", "##ble", "a", "b", "!"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    return WordPiece(tmp_path / "vocab.txt", longest=6)


def test_the_longest_piece_first_and_unknown_words(vocabulary):
    assert vocabulary.encode("unable") == [2, 4, 5, 3]
    assert vocabulary.encode("Able a!") == [2, 7, 9, 11, 3]
    assert vocabulary.encode("unxyz " + "a" * 101) == [2, 1, 1, 3]
    assert vocabulary.encode("") == [2, 3]
    assert vocabulary.encode("a b a b a b") == [2, 9, 10, 9, 10, 3]


def test_a_vocabulary_without_its_marks(tmp_path):
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"no \[CLS\]"):
        WordPiece(tmp_path / "vocab.txt")


# ---- the encoder


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)
    shapes = {"word_embeddings": (50, 384), "position_embeddings": (32, 384), "token_type_embeddings": (2, 384)}
    found = {f"embeddings.{name}.weight": rng.standard_normal(shape) for name, shape in shapes.items()}
    sizes = {
        "attention.self.query": (384, 384), "attention.self.key": (384, 384), "attention.self.value": (384, 384),
        "attention.output.dense": (384, 384), "intermediate.dense": (1536, 384), "output.dense": (384, 1536),
    }  # fmt: skip
    for layer in range(6):
        for name, shape in sizes.items():
            found[f"encoder.layer.{layer}.{name}.weight"] = rng.standard_normal(shape) * 1.5 / math.sqrt(shape[1])
            found[f"encoder.layer.{layer}.{name}.bias"] = 0.1 * rng.standard_normal(shape[0])
    norms = [f"encoder.layer.{n}.{name}.LayerNorm" for n in range(6) for name in ("attention.output", "output")]
    for name in ["embeddings.LayerNorm", *norms]:
        found |= {f"{name}.weight": 1 + 0.1 * rng.standard_normal(384), f"{name}.bias": 0.1 * rng.standard_normal(384)}
    return {name: array.astype(np.float32) for name, array in found.items()}


TOKENS = np.random.default_rng(1).integers(0, 50, (5, 9))


def test_numpy_and_torch_compute_the_same_function(weights):
    pytest.importorskip("torch")
    one, other = minilm.with_numpy(weights)(TOKENS), minilm.with_torch(weights, "cpu")(TOKENS)
    assert one.shape == (5, 384) and one.dtype == np.float32
    np.testing.assert_allclose(one, other, atol=3e-6)
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, rtol=1e-5)
    changed = dict(weights) | {"encoder.layer.3.attention.self.key.weight": weights["encoder.layer.2.attention.self.key.weight"]}
    assert np.abs(minilm.with_torch(changed, "cpu")(TOKENS) - one).max() > 1e-3  # the comparison sees a wrong matrix


def test_the_encoder_is_that_of_the_literature(weights):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    settings = transformers.BertConfig(
        vocab_size=50,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=32,
    )
    model = transformers.BertModel(settings, add_pooling_layer=False).eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    with torch.inference_mode():
        mean = model(torch.from_numpy(TOKENS)).last_hidden_state.mean(1)
    expected = torch.nn.functional.normalize(mean).numpy()
    np.testing.assert_allclose(minilm.with_numpy(weights)(TOKENS), expected, atol=3e-6)


def test_gelu_without_an_error_function():
    x = np.linspace(-9, 9, 4001, dtype=np.float32)
    exact = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    np.testing.assert_allclose(minilm.gelu(x), exact, atol=1e-6)


def safetensors(path, header, data=b"", length=None):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_safetensors(tmp_path):
    table = np.arange(6, dtype="<f4").reshape(2, 3)
    told = {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    assert np.array_equal(minilm.read_safetensors(safetensors(tmp_path / "m", told, table.tobytes()))["a"], table)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, 4]}, {"data_offsets": [0, 28]}, {"data_offsets": [-24, 0]}, {"data_offsets": [4, 28]}, {"dtype": "O"},
        {"shape": [-2, -3]}, {"shape": "23"}, {"data_offsets": [24]}, {"dtype": None},
    ],
)  # fmt: skip
def test_safetensors_that_lie(tmp_path, change):
    told = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **change}}
    with pytest.raises(DataError, match="not a readable safetensors"):
        minilm.read_safetensors(safetensors(tmp_path / "m", told, bytes(24)))


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 8, struct.pack("<Q", 2**40) + b"{}", struct.pack("<Q", 4) + b"[1]]", b"\2" + bytes(7) + b"[]"]
)
def test_no_safetensors_at_all(tmp_path, data):
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(DataError):
        minilm.read_safetensors(tmp_path / "m")


# ---- parts


def test_embedding_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(glosses, "PART", 16)
    monkeypatch.setitem(glosses.TOKENS, "torch", 20)
    monkeypatch.setattr(glosses, "_single", lambda how: None)
    rng = np.random.default_rng(0)
    corpus = ["x" * rng.integers(1, 9) + str(number) for number in range(50)]

    def encode(tokens):
        assert tokens.size <= 20 or len(tokens) == 1
        rows = np.zeros((len(tokens), 384), np.float32)
        rows[:, 0], rows[:, 1] = tokens.shape[1], tokens.sum(1)
        return rows

    def run(encode, said=None):
        return glosses.embed(corpus, lambda text: list(map(ord, text)), encode, "torch", tmp_path, said)

    expected = [[len(text), sum(map(ord, text))] for text in corpus]
    calls = []

    def failing(tokens):
        calls.append(len(tokens))
        if sum(calls) > 30:
            raise KeyboardInterrupt
        return encode(tokens)

    with pytest.raises(KeyboardInterrupt):
        run(failing)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 and files[0].suffix == ".npy"
    times = files[0].stat().st_mtime_ns
    said = []
    found = run(encode, lambda *told: said.append(told))
    assert found.dtype == np.float16 and found[:, :2].tolist() == expected
    assert files[0].stat().st_mtime_ns == times and len(list(tmp_path.iterdir())) == 4
    assert said[-1][0].startswith("glosses-384: 100 %") and all(total == 0 for _, _, total in said)
    # A part that is damaged, or of other texts, is embedded anew.
    files[0].write_bytes(files[0].read_bytes()[:-5])
    corpus[0] += "!"
    expected[0] = [expected[0][0] + 1, expected[0][1] + ord("!")]
    assert run(encode)[:, :2].tolist() == expected
