"""What is rewritten is what runs, whatever its source says, and takes nothing from the class itself."""

import copy
import importlib.util
import pickle

import pytest
import torch
from torch import nn

import reprune
from reprune.modules import own_width
from reprune.modules.norms import NormOfFewerChannels
from reprune.modules.own_width import WithOwnWidth, class_with_own_width
from tests.helpers.masking import exact, randomize
from tests.helpers.own_width import Plain, Stream

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SOURCE = """
import torch
from tests.helpers.own_width import Plain


class Attention(Plain):
    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        attn = (qkv[0] @ qkv[1].transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ qkv[2]).transpose(1, 2).reshape(B, N, C))
"""


def imported(path, source, name="written"):
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def heads_found(kind):
    """How many heads can leave of two attentions; what is pruned is what is masked."""
    torch.manual_seed(0)
    model = randomize(Stream(kind).double()).eval()
    graph = exact(model, X, seeds=range(2), layers="all")
    assert [type(one) for one in model.attentions] == [kind] * 2
    return [group.atoms.size for group in graph.groups if group.heads]


def test_a_file_that_was_edited_after_its_import_is_not_what_runs(tmp_path):
    kind = imported(tmp_path / "edited.py", SOURCE).Attention
    (tmp_path / "edited.py").write_text(SOURCE.replace("return self", "return 3 * self"))
    assert heads_found(kind) == []
    (tmp_path / "edited.py").write_text("\n" + SOURCE)
    assert class_with_own_width(kind) is None


def test_a_method_that_was_replaced_is_rewritten_anew(tmp_path):
    kind = imported(tmp_path / "first.py", SOURCE).Attention
    other = imported(tmp_path / "second.py", SOURCE.replace("return self", "return 3 * self")).Attention
    assert heads_found(kind) == [4, 4]
    kind.forward = other.forward
    assert heads_found(kind) == [4, 4]
    kind.forward = lambda self, x: 2 * other.forward(self, x)
    assert heads_found(kind) == []


@pytest.mark.parametrize(
    "line",
    [
        'x = x * len("""a\n        of two lines""")',
        "x = x * 1.5  # and a comment\n# that begins the line\n",
        "pick = lambda y, C=3: y  # noqa",
    ],
)
def test_strings_and_what_is_inside_stay_as_they_are(tmp_path, line):
    source = SOURCE.replace("        qkv =", f"        {line}\n        qkv =")
    assert heads_found(imported(tmp_path / "lines.py", source).Attention) == [4, 4]


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_each_of_two_classes_of_one_name_is_scripted_as_its_own(tmp_path):
    x, found = torch.randn(2, 9, 12), []
    for factor in (1, 3):
        source = SOURCE.replace("return self", f"return {factor} * self")
        kind = imported(tmp_path / f"of_{factor}.py", source).Attention
        torch.manual_seed(0)
        module = kind(12, 4).eval()
        module.__class__ = class_with_own_width(kind)
        module.__dict__.update(width_of_heads=12, width_of_input=12)
        found.append((module, module(x)))
    for module, expected in found:
        assert torch.equal(torch.jit.script(module)(x), expected)


class WithMade(Plain):
    def _made(self, x):
        return 2 * x

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        attn = (qkv[0] @ qkv[1].transpose(-2, -1)).softmax(dim=-1)
        return self._made(self.proj((attn @ qkv[2]).transpose(1, 2).reshape(B, N, C)))


class WithWidth(Plain):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.width_of_heads = 2.5

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        attn = (qkv[0] @ qkv[1].transpose(-2, -1)).softmax(dim=-1)
        return self.width_of_heads * self.proj((attn @ qkv[2]).transpose(1, 2).reshape(B, N, C))


class WithInput(Plain):
    def __init__(self, dim, num_heads):
        super().__init__(dim, num_heads)
        self.input = nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        x = x + self.input(x).reshape(B, N, C)
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        attn = (qkv[0] @ qkv[1].transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ qkv[2]).transpose(1, 2).reshape(B, N, C))


@pytest.mark.parametrize("kind", [WithMade, WithWidth, WithInput])
def test_names_that_an_attention_has_are_not_taken_from_it(kind):
    assert heads_found(kind) == []


class Turned(Plain):
    """The last size of its input is that of places, which are not as many as the heads are wide."""

    def forward(self, x):
        x = x.transpose(1, 2)
        B, _, N = x.shape
        x = x.transpose(1, 2)
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, 3).permute(2, 0, 3, 1, 4)
        attn = (qkv[0] @ qkv[1].transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ qkv[2]).transpose(1, 2).reshape(B, N, -1))


def test_places_are_not_taken_for_a_width():
    assert class_with_own_width(Turned) is None
    assert heads_found(Turned) == [4, 4]


class Stateful(nn.Module):
    """It has what cannot be pickled, and says what is."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.made = lambda x: x

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "made"}

    def __setstate__(self, state):
        super().__setstate__(state)
        self.made = len


class StatefulAttention(Stateful, Plain):
    """It says how a class of it is set, too."""

    __slots__ = ("slot",)

    def __setattr__(self, name, value):
        if name == "__class__":
            raise AttributeError(name)
        super().__setattr__(name, value)

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        attn = (qkv[0] @ qkv[1].transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ qkv[2]).transpose(1, 2).reshape(B, N, C))


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_a_class_pickles_as_it_says(protocol):
    assert heads_found(StatefulAttention) == [4, 4]
    small = StatefulAttention(12, 4)
    object.__setattr__(small, "__class__", class_with_own_width(StatefulAttention))
    small.__dict__.update(width_of_heads=12, width_of_input=12)
    for again in (pickle.loads(pickle.dumps(small, protocol)), copy.deepcopy(small)):
        assert isinstance(again, WithOwnWidth)
        assert isinstance(again, StatefulAttention)
        assert again.made is len


def test_without_a_source_it_says_why_it_cannot_be_unpickled(monkeypatch):
    small = Plain(12, 4)
    small.__class__ = class_with_own_width(Plain)
    small.__dict__.update(width_of_heads=12, width_of_input=12)
    saved = pickle.dumps(small)
    monkeypatch.setattr(own_width, "class_with_own_width", lambda whole: None)
    with pytest.raises(
        pickle.UnpicklingError, match=r"made from the source of tests\.helpers\.own_width\.Plain,"
    ):
        pickle.loads(saved)


class StatefulNorm(Stateful, nn.LayerNorm):
    pass


def test_a_norm_pickles_as_it_says():
    model = randomize(nn.Sequential(nn.Linear(8, 12), StatefulNorm(12), nn.Linear(12, 3)))
    x = torch.randn(2, 5, 8)
    small, _ = reprune.prune(model, x, sparsity=0.5, rule="uniform", layers="linear")
    assert isinstance(small[1], NormOfFewerChannels)
    small[1].made = lambda x: x
    for again in (pickle.loads(pickle.dumps(small)), copy.copy(small)):
        assert type(again[1]) is type(small[1])
        assert torch.equal(again(x), small(x))
    assert pickle.loads(pickle.dumps(small))[1].made is len
