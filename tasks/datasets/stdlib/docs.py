"""Text of the standard library: docstrings, the help topics of `pydoc`, their tokens, and the themes of modules."""

import ast
import re
from collections.abc import Iterator

# a word, with an inner apostrophe (`doesn't`); a run of characters that rule lines or prompt (`-----`, `>>>`); else
# one character that is neither word nor space
TOKEN = re.compile(r"\w+(?:'\w+)?|[-=*~`.>#]{2,}|[^\w\s]")
TOPICS = "pydoc_data/topics.py"

# Themes of top-level modules, after the chapters of the Library Reference. A split cuts between files, so to be right
# on another file is to have learnt the theme. Modules that fit none are left out.
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
    """(docstring, its line) of the module, its classes and functions, without the indentation of the source."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text, node.body[0].lineno
        # only statements are entered: expressions, most of a tree, hold no docstring
        for field in ("body", "orelse", "handlers", "finalbody", "cases"):
            waiting.extend(getattr(node, field, ()))


def topics(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """(topic, paragraph, line of the topic) of the help texts that `help('FOR')` shows, from the syntax of `TOPICS`."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            for key, value in zip(statement.value.keys, statement.value.values, strict=True):
                if key is not None:
                    topic, text = ast.literal_eval(key), ast.literal_eval(value)
                    for paragraph in re.split(r"\n\s*\n", text):
                        yield topic, paragraph, key.lineno
