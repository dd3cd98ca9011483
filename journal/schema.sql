-- One book: the same table in both, the journal (what the tills said) and the delivery book (what Omneo said).
-- Nothing is ever updated. The rules stand in the store itself, so that every tool has to keep them.
-- CHECKs instead of STRICT tables: SQLite 3.34.1 (Debian 11, RHEL 9) must be able to open this file.

CREATE TABLE log (
    seq         INTEGER PRIMARY KEY,   -- 1, 2, 3, …: no gaps
    at          TEXT NOT NULL          -- this machine's clock when the entry was written: UTC, YYYY-MM-DDTHH:MM:SS.mmmZ
                CHECK (typeof(at) = 'text'),
    kind        TEXT NOT NULL          -- a document kind, what happened to a document, or what happened to the book
                CHECK (typeof(kind) = 'text'),
    about       INTEGER                -- the journal seq of the document that this entry is about
                CHECK (typeof(about) IN ('integer', 'null')),
    external_id TEXT                   -- of the document
                CHECK (typeof(external_id) IN ('text', 'null')),
    facts       TEXT NOT NULL          -- small JSON, nothing personal in it
                CHECK (typeof(facts) = 'text' AND json_valid(facts)),
    body_hash   BLOB                   -- SHA-256(salt ‖ bytes) of the body: the chain covers this, not the bytes
                CHECK (body_hash IS NULL OR (typeof(body_hash) = 'blob' AND length(body_hash) = 32)),
    digest      BLOB NOT NULL          -- SHA-256(digest before ‖ all other columns): docs/format.md
                CHECK (typeof(digest) = 'blob' AND length(digest) = 32)
);

CREATE TABLE body (
    seq   INTEGER PRIMARY KEY,         -- of the log entry that it belongs to
    salt  BLOB NOT NULL CHECK (typeof(salt) = 'blob' AND length(salt) = 16),
    bytes BLOB NOT NULL CHECK (typeof(bytes) = 'blob')
);

CREATE TRIGGER log_extends_head BEFORE INSERT ON log
WHEN new.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM log)
BEGIN SELECT raise(ABORT, 'the log only grows at its end'); END;

CREATE TRIGGER log_no_update BEFORE UPDATE ON log
BEGIN SELECT raise(ABORT, 'the log is never changed'); END;

CREATE TRIGGER log_no_delete BEFORE DELETE ON log
BEGIN SELECT raise(ABORT, 'the log is never changed'); END;

CREATE TRIGGER body_belongs BEFORE INSERT ON body
WHEN new.seq <= (SELECT coalesce(max(seq), 0) FROM body)
  OR NOT EXISTS (SELECT 1 FROM log WHERE log.seq = new.seq AND body_hash IS NOT NULL)
BEGIN SELECT raise(ABORT, 'a body comes with its entry or not at all'); END;

CREATE TRIGGER body_no_update BEFORE UPDATE ON body
BEGIN SELECT raise(ABORT, 'a body is never changed'); END;

CREATE TRIGGER body_no_delete BEFORE DELETE ON body
WHEN NOT EXISTS (SELECT 1 FROM log WHERE about = old.seq AND kind IN ('redaction', 'archived'))
BEGIN SELECT raise(ABORT, 'a body goes only after an entry that says why'); END;

-- The first of each external_id is looked for at every intake; entries about a document are its history.
CREATE INDEX log_external_id ON log (external_id) WHERE external_id IS NOT NULL AND about IS NULL;
CREATE INDEX log_about ON log (about) WHERE about IS NOT NULL;
-- Few of each, and asked for by name.
CREATE INDEX log_flag ON log (about) WHERE kind = 'flag';
CREATE INDEX log_resolution ON log (json_extract(facts, '$.flag')) WHERE kind = 'resolution';
CREATE INDEX log_invalid ON log (json_extract(facts, '$.bytes')) WHERE kind = 'invalid';
CREATE INDEX log_released ON log (about) WHERE kind = 'released';
CREATE INDEX log_book ON log (kind) WHERE about IS NULL AND external_id IS NULL;
-- Who names a redemption: the sale it belongs to, its reversal, its returns.
CREATE INDEX log_names ON log (json_extract(facts, '$.names')) WHERE json_extract(facts, '$.names') IS NOT NULL;
-- A terminal's numbers: a gap in them is a file that never came.
CREATE INDEX log_terminal ON log (json_extract(facts, '$.terminal'), json_extract(facts, '$.sequence'))
    WHERE json_extract(facts, '$.sequence') IS NOT NULL;
CREATE INDEX log_gap ON log (json_extract(facts, '$.terminal'))
    WHERE kind = 'flag' AND json_extract(facts, '$.flag') = 'sequence_gap';
