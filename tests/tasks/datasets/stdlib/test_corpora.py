"""The built-in corpora: roles by hand and from the syntax tree, splits without leaks, sizes, fingerprints."""

import ast
import gc
import sys
from collections import Counter
from itertools import count, islice, pairwise

import pytest

from runner.common.errors import HydromelError
from tasks.datasets.split import SPLITS
from tasks.datasets.stdlib import corpora, source
from tasks.datasets.stdlib.corpora import CODE_SIZES, DOC_SIZES, THEME_OF, THEMES, TOKEN, docstrings, topics
from tasks.datasets.stdlib.roles import logical_lines
from tasks.datasets.stdlib.source import Size, parse, source_files, split_of

NAMES = ("stdlib_roles", "stdlib_modules", "stdlib_docstrings", "stdlib_words", "stdlib_chars")


def spans(line) -> list[tuple[str, str]]:
    """Return (role, text) of each span of a logical line, decoded tag by tag."""
    result: list[tuple[str, str]] = []
    for token, tag in zip(line.tokens, line.tags, strict=True):
        if tag.startswith("B-"):
            result.append((tag[2:], token))
        elif tag.startswith("I-"):
            role, text = result[-1]
            assert role == tag[2:]
            result[-1] = (role, text + token)
    return result


def rows(table, column="tokens") -> list[tuple[str, ...]]:
    return [tuple(row) for row in table[column].to_pylist()]


@pytest.fixture(scope="module")
def small():
    """Return each corpus in its small size."""
    readers = {
        "stdlib_roles": corpora.StdlibRoles(name="stdlib_roles", size="small", span_scheme="IOB2"),
        "stdlib_modules": corpora.StdlibModules(name="stdlib_modules", size="small"),
        "stdlib_docstrings": corpora.StdlibDocstrings(name="stdlib_docstrings", size="small"),
        "stdlib_words": corpora.StdlibWords(name="stdlib_words", size="small"),
        "stdlib_chars": corpora.StdlibChars(name="stdlib_chars", size="small"),
    }
    return {name: reader.read() for name, reader in readers.items()}


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Return `library(files)`, which replaces the standard library by these files (name -> text or bytes)."""
    monkeypatch.setattr(source.sysconfig, "get_path", lambda _: str(tmp_path))

    def build(files):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return build


def names_in(split: str, folder: str = ""):
    """Yield names of files that belong to a split."""
    return (name for i in count() if split_of(name := f"{folder}m{i}.py") == split)


def filled(folder: str = "") -> dict[str, str]:
    """Return a file with a docstring for each split."""
    return {
        next(names_in(split, folder)): f'"""This is the module of the {split} split."""\nx_{split} = 1\n'
        for split in SPLITS
    }


# --- roles -----------------------------------------------------------------------------------------------------

HAND_CHECKED = [
    ("x = 1", [("target", "x")]),
    ("self.size += n", [("target", "self.size")]),
    ("a, (b, *c) = d", [("target", "a"), ("target", "b"), ("target", "c")]),
    ("x[i] = y.z", [("attribute", "y.z")]),
    ("f(a).b = rows[0].c.d", [("callee", "f"), ("target", "b"), ("attribute", "c"), ("attribute", "d")]),
    ("del a.b", [("attribute", "a.b")]),
    ("return os.path.join(a, self.b)", [("callee", "os.path.join"), ("attribute", "self.b")]),
    ("f(x).g(key=y)", [("callee", "f"), ("callee", "g"), ("keyword", "key")]),
    ("super().__init__(*args, **kw)", [("callee", "super"), ("callee", "__init__")]),
    ("f(g)(h)", [("callee", "f")]),
    ("import os.path as p, re", [("module", "os.path"), ("alias", "p"), ("module", "re")]),
    ("from ..a.b import (c as d, e)", [("module", "..a.b"), ("imported", "c"), ("alias", "d"), ("imported", "e")]),
    ("from . import *", [("module", "."), ("imported", "*")]),
    (
        "def f(a, /, b: int = 1, *c, d: List[str], **e) -> a.B: pass",
        [
            ("function", "f"),
            ("parameter", "a"),
            ("parameter", "b"),
            ("annotation", "int"),
            ("parameter", "c"),
            ("parameter", "d"),
            ("annotation", "List[str]"),
            ("parameter", "e"),
            ("annotation", "a.B"),
        ],
    ),
    ("async def g(): pass", [("function", "g")]),
    ("class A: pass", [("class", "A")]),
    (
        "class A(b.C, D[int], metaclass=M, *bases): pass",
        [("class", "A"), ("base", "b.C"), ("base", "D[int]"), ("keyword", "metaclass")],
    ),
    ("class P(namedtuple('P', 'x')): pass", [("class", "P"), ("callee", "namedtuple")]),
    ("key = lambda a, b=c.d: a", [("target", "key"), ("parameter", "a"), ("parameter", "b"), ("attribute", "c.d")]),
    ("x: Optional[int] = None", [("target", "x"), ("annotation", "Optional[int]")]),
    ("for i, row.j in pairs: pass", [("loop_variable", "i"), ("loop_variable", "row.j")]),
    ("y = [a.b for a in c if d(a)]", [("target", "y"), ("attribute", "a.b"), ("loop_variable", "a"), ("callee", "d")]),
    ("raise ValueError(x) from e", [("exception", "ValueError")]),
    ("raise a.Error", [("exception", "a.Error")]),
    ("with open(p) as f, g: pass", [("callee", "open"), ("target", "f")]),
    ("if (n := len(a)) > 1: pass", [("target", "n"), ("callee", "len")]),
    ("print(f'{a.b} {c(d=1)!r:>{e.f}}', sep='')", [("callee", "print"), ("keyword", "sep")]),
    ("é = ü.ö(é, k=ü.a)", [("target", "é"), ("callee", "ü.ö"), ("keyword", "k"), ("attribute", "ü.a")]),
    ("x = (  # a comment\n  a.\n  b\n)", [("target", "x"), ("attribute", "a.b")]),
    ("global x", []),
    ("assert not x, 'no'", []),
]


@pytest.mark.parametrize(("text", "expected"), HAND_CHECKED, ids=[text for text, _ in HAND_CHECKED])
def test_roles_by_hand(text, expected):
    inside = "def outer():\n    " if text.startswith("return") else ""
    assert spans([*logical_lines(inside + text + "\n")][-1]) == expected


def by_line(text: str) -> list[list[tuple[str, str]]]:
    return [spans(line) for line in logical_lines(text)]


def test_roles_of_decorators():
    actual = by_line("@functools.wraps(f, x=1)\n@property\n@a.b\nclass C:\n    @d\n    async def f(self): pass\n")
    assert actual == [
        [("decorator", "functools.wraps"), ("keyword", "x")],
        [("decorator", "property")],
        [("decorator", "a.b")],
        [("class", "C")],
        [("decorator", "d")],
        [("function", "f"), ("parameter", "self")],
    ]


def test_roles_of_handlers():
    actual = by_line("try: pass\nexcept (A, b.C) as e: f()\nexcept D: pass\nexcept: pass\nelse: pass\n")
    assert actual == [
        [],
        [("exception", "A"), ("exception", "b.C"), ("target", "e"), ("callee", "f")],
        [("exception", "D")],
        [],
        [],
    ]


def test_roles_of_asynchronous_loops():
    text = "async def f():\n  async for a in b: pass\n  async with c() as d:\n    await e.f()\n  [g async for g in h]\n"
    assert by_line(text)[1:] == [
        [("loop_variable", "a")],
        [("callee", "c"), ("target", "d")],
        [("callee", "e.f")],
        [("loop_variable", "g")],
    ]


def test_roles_of_patterns():
    text = (
        "match p.q:\n case [a, *b]: pass\n case {'k': c, **d,}: pass\n case m.Point(x=0) as e: pass\n case _: pass\n"
        " case N.ONE | (2 as f): pass\n"
    )
    assert by_line(text) == [
        [("attribute", "p.q")],
        [("target", "a"), ("target", "b")],
        [("target", "c"), ("target", "d")],
        [("callee", "m.Point"), ("target", "e")],
        [],
        [("attribute", "N.ONE"), ("target", "f")],
    ]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of Python 3.12")
def test_roles_of_type_parameters():
    assert by_line("def f[T](x: T) -> T: pass\ntype A[T] = list[T]\n") == [
        [("function", "f"), ("parameter", "x"), ("annotation", "T"), ("annotation", "T")],
        [("target", "A")],
    ]


def test_string_literals_are_single_short_tokens():
    text = "x('short', rb'longer than that', f'{a}', f'{b:{c}}{d[\"e\"]}', '''a\nb''', u\"exactly12345\" 'and')\n"
    (line,) = logical_lines(text)
    strings = [token for token in line.tokens if token[-1] in "'\""]
    assert strings == ["'short'", "rb'...'", "f'...'", "f'...'", "'''...'''", 'u"..."', "'and'"]
    (line,) = logical_lines("'123456789012' '1234567890123'\n")
    assert line.tokens == ["'123456789012'", "'...'"]


def test_logical_lines_know_where_they_begin():
    text = "# comment\n\nx = (1,\n     2)  # two\nif x: y = 1; z = 2\n\f\nw = 3"
    assert [(line.line, " ".join(line.tokens)) for line in logical_lines(text)] == [
        (3, "x = ( 1 , 2 )"),
        (5, "if x : y = 1 ; z = 2"),
        (7, "w = 3"),
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "\n\n"])
def test_no_source_no_lines(text):
    assert list(logical_lines(text)) == []


def test_what_is_no_python_is_a_syntax_error():
    with pytest.raises(SyntaxError):
        list(logical_lines("print 'Python 2'\n"))


def outside_of_strings(tree):
    """Yield every node, by recursion, except those inside f-strings."""
    yield tree
    if not isinstance(tree, ast.JoinedStr):
        for child in ast.iter_child_nodes(tree):
            yield from outside_of_strings(child)


def test_roles_against_the_names_in_the_syntax_tree():
    files = [file for file in source_files(CODE_SIZES["small"]) if file.text().strip()]
    assert len(files) > 20
    for file in files:
        actual: dict[str, Counter[str]] = {role: Counter() for role in ("function", "class", "parameter", "alias")}
        actual |= {"imported": Counter(), "module": Counter(), "keyword": Counter()}
        for line in logical_lines(file.text()):
            for role, text in spans(line):
                if role in actual:
                    actual[role][text] += 1
        nodes = list(outside_of_strings(ast.parse(file.text())))
        names = {
            "function": [node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))],
            "class": [node.name for node in nodes if isinstance(node, ast.ClassDef)],
            "parameter": [node.arg for node in nodes if isinstance(node, ast.arg)],
            "alias": [node.asname for node in nodes if isinstance(node, ast.alias) and node.asname],
            "imported": [alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names],
            "module": ["." * node.level + (node.module or "") for node in nodes if isinstance(node, ast.ImportFrom)]
            + [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names],
            "keyword": [node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg],
        }
        assert actual == {role: Counter(expected) for role, expected in names.items()}, file.name


def test_dotted_callees_against_the_syntax_tree():
    checked = 0
    for file in source_files(CODE_SIZES["small"]):
        actual = Counter(text for line in logical_lines(file.text()) for role, text in spans(line) if role == "callee")
        for node in outside_of_strings(parse(file.text())):
            # those at the head of a raise or a decorator have another role
            if isinstance(node, (ast.Expr, ast.Return)) and isinstance(node.value, ast.Call):
                callee = ast.unparse(node.value.func)
                if callee.replace(".", "").isidentifier():
                    assert actual[callee] > 0, (file.name, callee)
                    actual[callee] -= 1
                    checked += 1
    assert checked > 100


# --- the corpora -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_configs_read_what_the_readers_read(name, small, corpus):
    reader = corpus(name, None, size="small")
    assert reader.name == name
    again = reader.read()
    assert list(again) == list(SPLITS)
    assert all(again[split].equals(small[name][split]) for split in SPLITS)


@pytest.mark.parametrize("name", NAMES)
def test_a_small_corpus_is_worth_training_on(name, small):
    lengths = {split: [len(row) for row in rows(table)] for split, table in small[name].items()}
    assert len(lengths["train"]) > 1000
    assert min(len(lengths["valid"]), len(lengths["test"])) > 50
    assert min(min(length) for length in lengths.values()) >= 1
    assert max(lengths["train"]) > 2 * sum(lengths["train"]) / len(lengths["train"])  # uneven


@pytest.mark.parametrize("name", ["stdlib_roles", "stdlib_modules", "stdlib_docstrings", "stdlib_words"])
def test_no_example_stands_twice(name, small):
    every = [row for split in SPLITS for row in rows(small[name][split])]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("name", NAMES)
def test_no_file_stands_in_two_splits(name, small):
    seen = {
        split: {origin.rpartition(":")[0] for origin in table["origin"].to_pylist()}
        for split, table in small[name].items()
    }
    assert all(seen.values())
    assert not seen["train"] & seen["valid"]
    assert not (seen["train"] | seen["valid"]) & seen["test"]


def test_tags_are_legal_and_multi_token_spans_occur(small):
    for table in small["stdlib_roles"].values():
        longest = 0
        for tokens, tags in zip(rows(table), rows(table, "tags"), strict=True):
            assert len(tokens) == len(tags) <= corpora.MAX_LINE_TOKENS
            for before, tag in pairwise(("O", *tags)):
                if tag.startswith("I-"):
                    assert before[2:] == tag[2:]
            longest = max(longest, sum(tag == "I-callee" for tag in tags))
        assert longest >= 4


def test_every_role_occurs_in_train(small):
    tags = {tag for row in rows(small["stdlib_roles"]["train"], "tags") for tag in row}
    roles = "function class parameter annotation base decorator module imported alias callee keyword exception"
    assert {tag[2:] for tag in tags if tag != "O"} == {*roles.split(), "loop_variable", "target", "attribute"}


def test_themes(small):
    labels = {split: set(table["label"].to_pylist()) for split, table in small["stdlib_modules"].items()}
    assert labels["train"] <= set(THEMES)
    assert len(labels["train"]) >= 10
    assert labels["valid"] | labels["test"] <= labels["train"]
    assert sum(len(modules.split()) for modules in THEMES.values()) == len(THEME_OF)  # no module has two themes


def test_a_docstring_does_not_name_its_own_module(small):
    for table in small["stdlib_modules"].values():
        for tokens, origin in zip(rows(table), table["origin"].to_pylist(), strict=True):
            own = origin.partition(":")[0].partition("/")[0].removesuffix(".py").lower()
            assert own not in {token.lower() for token in tokens}
            assert len(tokens) >= corpora.MIN_DOC_TOKENS
    assert any(corpora.OWN_NAME in row for row in rows(small["stdlib_modules"]["train"]))


def test_functions_have_their_own_docstring_or_that_of_another(small):
    for table in small["stdlib_docstrings"].values():
        labels = Counter(table["label"].to_pylist())
        assert set(labels) == {"own", "another"}
        assert labels["own"] / table.num_rows == pytest.approx(0.5, abs=0.1)
        for code, summary in zip(rows(table), rows(table, "tokens_b"), strict=True):
            assert 1 <= len(code) <= corpora.MAX_CODE_WORDS
            assert summary


def test_the_words_of_a_function_are_without_its_docstring():
    text = '''class A:
    async def readHTTP_lines(self, n=1):
        """Read n lines.

        More.
        """
        return self.file[:n]  # all
    def other(self): pass
'''
    expected = ["async", "def", "read", "HTTP", "lines", "self", "n", "return", "self", "file", "n", "all"]
    assert list(corpora.documented_functions(text)) == [(expected, ["Read", "n", "lines"], 2)]


def test_characters_are_the_lines_of_the_file(small):
    table = small["stdlib_chars"]["train"].slice(0, 200)
    for row, origin in zip(rows(table), table["origin"].to_pylist(), strict=True):
        name, _, line = origin.rpartition(":")
        text = (source.library() / name).read_text(encoding="utf-8").split("\n")[int(line) - 1]
        assert "".join(row) == text.rstrip() != ""


def test_word_tokens():
    text = "It doesn't `join`: os.path -----\n>>> a_b[1:] == 'x' ... é"
    spaced = "It doesn't ` join ` : os . path ----- >>> a_b [ 1 : ] == ' x ' ... é"
    assert TOKEN.findall(text) == spaced.split()
    assert "".join(TOKEN.findall(text)) == "".join(text.split())


def test_docstrings_are_found_wherever_they_stand():
    text = '''"""M."""
if a:
    try:
        def f():
            """F.

            More.
            """
    except E:
        class C:
            "C."
    else:
        with x:
            async def g(): "G."
match y:
    case 1:
        def h(): """H."""
def no(): pass
x = "none"
'''
    assert sorted(docstrings(parse(text))) == [("C.", 11), ("F.\n\nMore.", 5), ("G.", 14), ("H.", 17), ("M.", 1)]


def test_topics_are_cut_into_paragraphs():
    tree = parse(
        "# Autogenerated by Sphinx\ntopics = {'FOR': 'One\\nline.\\n'\n '\\n \\nTwo.',\n 'IF': r'''Three.'''}\n"
    )
    assert list(topics(tree)) == [("FOR", "One\nline.", 2), ("FOR", "Two.", 2), ("IF", "Three.", 4)]


# --- sizes, splits, fingerprints -------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [CODE_SIZES, DOC_SIZES])
def test_sizes_nest(sizes):
    names = [{file.name for file in source_files(sizes[size])} for size in ("small", "medium", "full")]
    assert names[0] < names[1] < names[2]


def test_examples_of_train_nest(small):
    full = corpora.StdlibModules(name="stdlib_modules", size="full").read()
    assert set(rows(small["stdlib_modules"]["train"])) < set(rows(full["train"]))
    everywhere = {row for split in SPLITS for row in rows(full[split])}
    assert {row for split in SPLITS for row in rows(small["stdlib_modules"][split])} < everywhere


def test_about_a_tenth_of_the_files_for_valid_and_test():
    share = Counter(split_of(f"package/module{i}.py") for i in range(5000))
    assert share["valid"] / 5000 == pytest.approx(0.1, abs=0.02)
    assert share["test"] / 5000 == pytest.approx(0.1, abs=0.02)


def test_no_tests_packages_or_generated_files():
    names = [file.name for file in source_files(Size(1, 1e9))]
    assert len(names) > 300
    folders = {part for name in names for part in name.split("/")[:-1]}
    assert not folders & {"test", "tests", "site-packages", "dist-packages", "__pycache__", "lib2to3", "idlelib"}
    assert not {"keyword.py", "pydoc_data/topics.py"} & set(names)


def test_hidden_files_of_a_library(library):
    files = filled()
    library(files | {"test/m.py": "x = 1", "lib2to3/tests/data/m.py": "x = 1", "site-packages/m.py": "x = 1"})
    library({"made.py": "# This file is generated by hand.\n", "config-3.11/m.py": "x = 1", "notes.txt": "no"})
    assert [file.name for file in source_files(CODE_SIZES["full"])] == sorted(files)


def test_of_equal_examples_train_keeps_its_own_then_valid(library):
    text = '"""The very same docstring in every split."""\nthe_same = 1\n'
    library(filled() | {next(islice(names_in(split), 1, None)): text for split in SPLITS})
    for reader in (
        corpora.StdlibRoles(name="roles", size="full", span_scheme="IOB2"),
        corpora.StdlibWords(name="words", size="full"),
        corpora.StdlibChars(name="chars", size="full"),
    ):
        lines = {split: ["".join(row) for row in rows(table)] for split, table in reader.read().items()}
        marks = {split: sum("same" in line for line in item) for split, item in lines.items()}
        assert marks["train"] >= 1
        assert marks["valid"] == marks["test"] == 0, reader.name
        assert all(lines.values())


def test_a_new_file_moves_no_example(library):
    library(filled())
    reader = corpora.StdlibChars(name="chars", size="full")
    before = reader.read()
    library({"another/new.py": "y = 2\n", "zzz.py": "z = 3\n"})
    after = reader.read()
    assert all(set(rows(before[split])) <= set(rows(after[split])) for split in SPLITS)
    assert sum(table.num_rows for table in after.values()) == sum(table.num_rows for table in before.values()) + 2


def test_files_that_cannot_be_read_as_python_are_left_out(library):
    library(filled() | {"bad.py": "print 'x'\n", "bytes.py": b"x = '\xff\xfe'\n", "cookie.py": b"# coding: none\n"})
    library({"nul.py": b"x = 1\0\n"})
    origins = {
        origin.partition(":")[0]
        for reader in (
            corpora.StdlibRoles(name="roles", size="full", span_scheme="IOB2"),
            corpora.StdlibWords(name="words", size="full"),
        )
        for table in reader.read().values()
        for origin in table["origin"].to_pylist()
    }
    assert origins == set(filled())


def test_encodings_marks_and_line_ends(library):
    library(filled() | {"latin.py": b"# coding: latin-1\r\n\xe9 = 1\r\n", "mark.py": b"\xef\xbb\xbf\xc3\xbc = a.b\n"})
    tables = corpora.StdlibRoles(name="roles", size="full", span_scheme="IOB2").read()
    actual = {
        origin: row for t in tables.values() for origin, row in zip(t["origin"].to_pylist(), rows(t), strict=True)
    }
    assert actual["latin.py:2"] == ("é", "=", "1")
    assert actual["mark.py:1"] == ("ü", "=", "a", ".", "b")


def test_a_theme_that_train_lacks_is_left_out(library):
    library(filled() | filled("asyncio/") | {next(names_in("test", "xml/")): '"""Text of a theme not in train."""'})
    tables = corpora.StdlibModules(name="modules", size="full").read()
    assert {split: set(table["label"].to_pylist()) for split, table in tables.items()} == {
        split: {"concurrency"} for split in SPLITS
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_library_without_source_is_one_clear_error(name, library, corpus):
    folder = library({"os.py": "x = 1\n"})
    for act in ("read", "fingerprint"):
        with pytest.raises(HydromelError, match="standard library is zipped, stripped or missing") as caught:
            getattr(corpus(name, None), act)()
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_library_that_is_not_there_is_the_same_error(library, tmp_path, monkeypatch):
    monkeypatch.setattr(source.sysconfig, "get_path", lambda _: str(tmp_path / "python311.zip"))
    with pytest.raises(HydromelError, match=r"python311\.zip: 0 Python source files"):
        corpora.StdlibChars(name="chars", size="small").read()


def test_fingerprints_tell_corpora_and_sizes_apart(corpus):
    actual = [corpus(name, None, size=size).fingerprint() for name in NAMES for size in ("small", "medium", "full")]
    assert len(set(actual)) == len(actual)
    assert actual[0] == corpus("stdlib_roles", None, size="small", name="another name").fingerprint()
    assert all(len(item) == 64 for item in actual)


def test_fingerprints_follow_contents_and_versions(library, monkeypatch):
    library(filled())
    reader = corpora.StdlibWords(name="words", size="full")
    seen = [reader.fingerprint()]
    assert reader.fingerprint() == seen[0]
    library({"more.py": "x = 1\n"})
    seen.append(reader.fingerprint())
    library({"more.py": "x = 2\n"})
    seen.append(reader.fingerprint())
    library({"pydoc_data/topics.py": "topics = {}\n"})
    seen.append(reader.fingerprint())
    monkeypatch.setattr(source.platform, "python_version", lambda: "3.99.0")
    seen.append(reader.fingerprint())
    assert len(set(seen)) == 5


def test_reading_leaves_the_collector_on():
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        corpora.rows_of(source_files(CODE_SIZES["small"]), lambda _: 1 / 0)
    assert gc.isenabled()
