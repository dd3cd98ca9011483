"""
The file that a book lives in: opening it, holding its lock, and sorting what the system says when that fails.

Rollback journal (`DELETE`) with `synchronous=EXTRA`, chosen over WAL in docs/decisions.md: a reader without write
permission works at any time, erased bytes are gone, and SQLite's WAL-reset fault can't touch us.
"""

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from glob import escape
from pathlib import Path
from urllib.parse import quote

SQLITE_OLDEST = (3, 34, 1)  # Debian 11, RHEL 9; tested by `make oldest`
FORMAT = 2  # user_version of both books; what led here is in migrate.py
APPLICATION_ID = {"journal": 0x4F4D4A31, "delivery": 0x4F4D4431}  # "OMJ1", "OMD1"
PAGE_BYTES = 16384  # a 2 KB body on 4 KiB pages wastes half the file
HEADER_BYTES = 100  # of any SQLite file
BUSY_MS = 5000  # how long a commit waits for readers, and a reader for a commit


class Unusable(Exception):  # noqa: N818 - these three say what is the matter
    """The book is not there, not ours, or newer than this program: a matter of configuration (exit 78)."""


class Damaged(Unusable):
    """It was a book once: `verify` calls that a finding, everything else stops."""


class NotNow(Exception):  # noqa: N818
    """Somebody else holds the book, or the disk is full: nothing was written, it can be tried again (exit 75)."""


class NoSuch(Exception):  # noqa: N818
    """What was asked for by name isn't in the books (exit 1)."""


def open_book(path: Path, book: str, *, write: bool, older: bool = False) -> sqlite3.Connection:
    """
    Open a book that is there. Raises Unusable with what to do, NotNow if it can't be read this moment.

    `older`: to write to it even though an earlier version wrote it, which is for migrate.py alone.
    """
    check_sqlite()
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        hint = f"create it with: omneo-journal init --db {path}" if book == "journal" else "omneo-forwarder creates it"
        raise Unusable(f"There is no {_called(book)} at {path}: {hint}.") from None
    except OSError as error:
        raise system_failed(error, path) from error
    if not regular:
        raise Unusable(f"{path} is not a file. Give the {_called(book)} with {_option(book)}.")
    try:
        return _open(path, book, write=write, older=older)
    except sqlite3.OperationalError as error:
        if write or not _left_hot(error, path):
            raise reading_failed(error, path) from error
    try:  # What a killed writer left half done is undone by SQLite itself, as soon as somebody opens who may write.
        _open(path, book, write=True, older=True).close()
        return _open(path, book, write=False)
    except sqlite3.OperationalError as error:
        raise reading_failed(error, path) from error


def _open(path: Path, book: str, *, write: bool, older: bool = False) -> sqlite3.Connection:
    """Open, look whether it is ours, and set up a connection that writes."""
    db = sqlite3.connect(uri(path, "rw" if write else "ro"), uri=True, isolation_level=None)
    try:
        db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        _recognise(db, path, book, oldest=1 if older or not write else FORMAT)
        if write:
            _check_writable(path)
            set_up(db)
    except sqlite3.OperationalError:
        db.close()
        raise
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite may quote what it stumbles over
        db.close()
        raise _no_book(path, book) from error
    except BaseException:
        db.close()
        raise
    return db


def _recognise(db: sqlite3.Connection, path: Path, book: str, oldest: int) -> None:
    """Is it a book of ours, and of a format that will do?"""
    identity = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if path.stat().st_size == 0:
        raise Damaged(f"{path} is empty, which a {_called(book)} never is: restore it from a backup.")
    if identity != APPLICATION_ID[book] and path.stat().st_size < HEADER_BYTES:
        raise _no_book(path, book)
    if identity != APPLICATION_ID[book]:
        raise Unusable(f"{path} is not a {_called(book)}. Give the right file with {_option(book)}.")
    if version > FORMAT:
        raise Unusable(f"{path} was written by a newer version of this program; install that version or a later one.")
    if version < 1:
        raise Damaged(f"{path} has no format that a {_called(book)} ever had: restore it from a backup.")
    if version < oldest:
        program = "omneo-journal ingest" if book == "journal" else "omneo-forwarder run"
        raise NotNow(f"{path} is of an earlier version; start {program} first, which brings it to this one's form.")


def _check_writable(path: Path) -> None:
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
            raise system_failed(OSError(errno.EROFS, os.strerror(errno.EROFS)), path)
        words = "or its directory can't be written by this user; run the command as the user that owns it"
        raise Unusable(f"{path} {words}.")


def uri(path: Path, mode: str) -> str:
    """SQLite's name for a file, whatever bytes its path is made of."""
    return f"file://{quote(os.fsencode(path.absolute()))}?mode={mode}"


def _left_hot(error: sqlite3.OperationalError, path: Path) -> bool:
    """Is it that a writer was killed in the middle of a commit, and that we may clean up after it?"""
    hot = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_ROLLBACK
    return hot and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _no_book(path: Path, book: str) -> Unusable:
    with path.open("rb") as file:
        if file.read(16) == b"SQLite format 3\0":
            return Damaged(f"{path} is damaged: SQLite can't read it. Keep it as evidence, and restore a backup.")
    return Unusable(f"{path} is not a {_called(book)}: it is no SQLite file. Give the right one with {_option(book)}.")


def _called(book: str) -> str:
    return "journal" if book == "journal" else "delivery book"


def _option(book: str) -> str:
    return "--db" if book == "journal" else "--delivery"


def set_up(db: sqlite3.Connection) -> None:
    """Settings of a writing connection. Sources: sqlite.org/pragma.html, and the figures in docs/decisions.md."""
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA synchronous = EXTRA")  # also syncs the directory after the rollback journal is unlinked
    db.execute("PRAGMA secure_delete = ON")  # a redacted body is overwritten, not just unlinked
    db.execute("PRAGMA cell_size_check = ON")
    db.execute("PRAGMA cache_size = -2000")  # KiB


def check_sqlite() -> None:
    """Refuse a library that is older than what we test with."""
    if sqlite3.sqlite_version_info < SQLITE_OLDEST:
        needed = ".".join(map(str, SQLITE_OLDEST))
        raise Unusable(f"SQLite {sqlite3.sqlite_version} is too old: {needed} or newer is needed.")


def reading_failed(error: sqlite3.OperationalError, path: Path) -> Exception:
    """Sort what SQLite says into: later, never, or a dying disk (which is for whoever restarts us)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return NotNow(f"{path} is held by another program; try again in a moment.")
    if code == sqlite3.SQLITE_FULL:
        return NotNow(f"The disk that holds {path} is full; free some space, everything goes on by itself then.")
    if code == sqlite3.SQLITE_CANTOPEN:
        return Unusable(f"{path} can't be opened: check that it is a file, and who may read it and its directory.")
    if code == sqlite3.SQLITE_READONLY:
        # A reader without write permission met the remains of a crash; the writer cleans up when it starts.
        return NotNow(f"{path} has to be recovered by the program that writes it; start that program first.")
    return error


def system_failed(error: OSError, path: Path) -> Exception:
    """Sort what the operating system says of a file in the same way."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NotNow(f"The disk that holds {path} is full; free some space.")
    if error.errno == errno.EROFS:  # as the kernel makes it after an error, until somebody mounts it anew
        return NotNow(f"The disk that holds {path} is read-only; look at the system's log.")
    if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}:
        return NotNow(f"{path}: {error.strerror}.")
    return Unusable(f"{path} can't be used: {error.strerror}. Check the path, and that this user may use it.")


@contextmanager
def only_instance(path: Path, program: str) -> Iterator[None]:
    """Hold the lock beside a book for as long as the block runs. Raises NotNow if another process holds it."""
    lock = Path(os.path.realpath(path) + ".lock")  # one book, one lock, by whatever name it is called
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except PermissionError:
        raise Unusable(f"{lock} can't be written by this user; run {program} as the user that owns it.") from None
    except OSError as error:
        raise system_failed(error, lock) from error
    belong(lock)
    try:
        flock(handle, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise NotNow(f"Another {program} already works on {path}; stop it first.") from None
    try:
        clear_drafts(path)
        _sync_name(path)
        yield
    finally:
        os.close(handle)


def belong(path: Path) -> None:
    """A new file belongs to whom its directory belongs to: what root makes, the programs have to be able to write."""
    with suppress(PermissionError):
        place = path.parent.stat()
        os.chown(path, place.st_uid, place.st_gid)


def clear_drafts(path: Path) -> None:
    """What a creation of this book left behind when the power went: the book is there, or it will be made anew."""
    with suppress(OSError):
        for draft in path.parent.glob(f".{escape(path.name)}.*.new*"):
            draft.unlink()


def _sync_name(path: Path) -> None:
    """Whoever made this book may have been killed before its name was on disk: here it is, before anything is added."""
    try:
        with suppress(PermissionError):
            sync_directory(path.parent)
    except OSError as error:
        raise system_failed(error, path) from error


def make_directory(path: Path) -> None:
    """A directory that is there after a power cut too, whatever is then put into it; and those above it."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True, mode=0o750)
        sync_directory(path.parent)


def at_work(path: Path) -> bool | None:
    """Does a program hold the lock beside a book? Asked of the kernel's list, which disturbs nobody; None: not told."""
    try:
        inode = os.stat(os.path.realpath(path) + ".lock").st_ino  # noqa: PTH116
        locks = Path("/proc/locks").read_text("ascii")
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return any("FLOCK" in line and f":{inode} " in line for line in locks.splitlines())


def sync_directory(path: Path) -> None:
    """Make a directory's entries durable (a new or renamed file isn't, until this)."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
