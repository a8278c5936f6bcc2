"""Text of the standard library: docstrings, the help topics of `pydoc`, their tokens, and the themes of modules."""

import ast
import re
from collections.abc import Iterator

# A word, possibly with an apostrophe (`doesn't`); a run of ruling or prompt characters (`-----`, `>>>`); or any other
# character that is not white space.
TOKEN = re.compile(r"\w+(?:'\w+)?|[-=*~`.>#]{2,}|[^\w\s]")
TOPICS = "pydoc_data/topics.py"

# Themes of top-level modules, after the chapters of the Library Reference. Splits are by file, so a model has to learn
# the theme, not the file. Modules that fit no theme are left out.
THEMES = {
    "concurrency": "asyncio concurrent contextvars multiprocessing queue sched selectors signal subprocess threading "
    "_threading_local",
    "data_types": "_collections_abc _pydatetime _strptime _weakrefset bisect calendar collections copy copyreg "
    "dataclasses datetime enum functools graphlib heapq operator pprint reprlib types weakref zoneinfo",
    "development": "bdb cProfile doctest logging pdb profile pstats timeit trace traceback tracemalloc unittest "
    "warnings",
    "files": "_compression _pyio bz2 dbm filecmp fileinput fnmatch genericpath glob gzip io linecache lzma mimetypes "
    "ntpath nturl2path os pathlib pickle posixpath pty shelve shutil sqlite3 stat tarfile tempfile zipapp zipfile",
    "graphics": "curses tkinter tty turtle",
    "import": "compileall distutils ensurepip imp importlib modulefinder pkgutil py_compile runpy site sysconfig venv "
    "zipimport",
    "language": "_py_abc abc ast code codeop contextlib dis inspect opcode pickletools pyclbr pydoc rlcompleter "
    "symtable tabnanny token tokenize typing _pyrepl",
    "mail": "base64 email imaplib mailbox mailcap nntplib poplib quopri smtpd smtplib uu",
    "markup": "_markupbase configparser csv html json netrc plistlib tomllib xdrlib xml",
    "network": "asynchat asyncore cgi cgitb ftplib http ipaddress socket socketserver ssl telnetlib urllib webbrowser "
    "wsgiref xmlrpc",
    "numbers": "_pydecimal _pylong colorsys decimal fractions hashlib hmac numbers random secrets statistics",
    "text": "argparse cmd codecs difflib getopt getpass gettext locale optparse re shlex string stringprep textwrap",
}
THEME_OF = {module: theme for theme, modules in THEMES.items() for module in modules.split()}


def docstrings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield (docstring, line) of the module, its classes and functions, without the source's indentation."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text, node.body[0].lineno
        # Only statements are visited: expressions are most of a tree and contain no docstrings.
        for field in ("body", "orelse", "handlers", "finalbody", "cases"):
            pending.extend(getattr(node, field, ()))


def topics(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Yield (topic, paragraph, line of the topic) of the texts shown by `help('FOR')`, from the tree of `TOPICS`."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            for key, value in zip(statement.value.keys, statement.value.values, strict=True):
                if key is not None:
                    topic, text = ast.literal_eval(key), ast.literal_eval(value)
                    for paragraph in re.split(r"\n\s*\n", text):
                        yield topic, paragraph, key.lineno
