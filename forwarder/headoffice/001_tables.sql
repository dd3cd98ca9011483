-- The head office's ledger: what every store's two books say, verified link by link as it arrived (002_ship.sql).
-- Entries are only ever added. What stands beside them (waiting, flag, day, …) is derived from them as they come, so that
-- a question about the whole chain of shops reads what is open and not what ever was.

CREATE SCHEMA ledger;

-- A store is a role of the database: what it may say is said for itself only.
CREATE TABLE ledger.store (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    role        name NOT NULL UNIQUE,
    name        text NOT NULL,
    region      text NOT NULL,
    timezone    text NOT NULL,             -- of its days
    journal     text UNIQUE,               -- identity of its journal: that of the first one which came
    enrolled_at timestamptz NOT NULL DEFAULT now()
);

-- One book of one store, as far as it is here. After a fork that the head office has accepted, another goes on from it.
CREATE TABLE ledger.chain (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store        integer NOT NULL REFERENCES ledger.store,
    book         text NOT NULL CHECK (book IN ('journal', 'delivery')),
    parent       integer REFERENCES ledger.chain,    -- which it goes on from
    seq          bigint NOT NULL DEFAULT 0,          -- the head
    digest       bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    told_seq     bigint NOT NULL DEFAULT 0,          -- how far the store says that its book goes
    seen_at      timestamptz,                        -- when it last spoke …
    grown_at     timestamptz,                        -- … and last brought something …
    complete_at  timestamptz,                        -- … and when all that it had was here
    clock_off_s  double precision,                   -- the store's clock, less ours
    link         text,                               -- of the delivery book: its line to Omneo
    link_since   timestamptz,
    link_reason  text,
    ended_at     timestamptz                         -- another chain goes on in its place
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX chain_current ON ledger.chain (store, book) WHERE ended_at IS NULL;
CREATE INDEX chain_parent ON ledger.chain (parent) WHERE parent IS NOT NULL;

-- The chains that count: each store's two, and those of a journal that it had before (another box, another journal). Not those
-- which another goes on from.
CREATE VIEW ledger.counting AS
SELECT c.*, c.ended_at IS NOT NULL AS former FROM ledger.chain AS c
WHERE NOT EXISTS (SELECT FROM ledger.chain AS next WHERE next.parent = c.id);

-- Whose entries a chain is made of, and up to which: all of its own, and those of its parents before each fork.
CREATE TABLE ledger.part (
    chain integer NOT NULL REFERENCES ledger.chain,
    part  integer NOT NULL REFERENCES ledger.chain,
    upto  bigint NOT NULL,
    PRIMARY KEY (chain, part)
);
CREATE INDEX part_part ON ledger.part (part);

-- Both books' entries, to the letter (docs/format.md): the digests can be computed again from what stands here.
-- Partitioned by when they came, by this machine's clock: a shop's clock may say anything.
CREATE TABLE ledger.entry (
    chain       integer NOT NULL,
    seq         bigint NOT NULL,
    received    timestamptz NOT NULL,
    at          timestamptz NOT NULL,
    about       bigint,
    kind        text NOT NULL,
    external_id text,
    facts       text NOT NULL,
    body_hash   bytea,
    digest      bytea NOT NULL,
    PRIMARY KEY (chain, seq, received)
) PARTITION BY RANGE (received);
CREATE TABLE ledger.entry_other PARTITION OF ledger.entry DEFAULT;
CREATE INDEX entry_about ON ledger.entry (chain, about) WHERE about IS NOT NULL;
CREATE INDEX entry_external_id ON ledger.entry (external_id) WHERE external_id IS NOT NULL AND about IS NULL;
CREATE INDEX entry_seldom ON ledger.entry (kind, chain, seq)
    WHERE kind NOT IN ('sale', 'redemption', 'reversal', 'return', 'delivered', 'turn', 'attempt');

-- Only from stores that send bodies; it goes when the store says that it went there.
CREATE TABLE ledger.body (
    chain    integer NOT NULL,
    seq      bigint NOT NULL,
    received timestamptz NOT NULL,
    salt     bytea NOT NULL,
    bytes    bytea NOT NULL,
    PRIMARY KEY (chain, seq, received)
) PARTITION BY RANGE (received);
CREATE TABLE ledger.body_other PARTITION OF ledger.body DEFAULT;

-- Documents that are not settled, of all stores. A redemption's customer is a keyed hash; the key is not here.
CREATE TABLE ledger.waiting (
    chain       integer NOT NULL,          -- the journal's
    seq         bigint NOT NULL,
    store       integer NOT NULL,
    kind        text NOT NULL,
    external_id text,
    at          timestamptz NOT NULL,
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'held')),
    reason      text,
    terminal    text,
    amount      numeric,
    currency    text NOT NULL,
    names       text,
    customer    bytea,
    what        text,                      -- which reward: its strategies or its benefit
    PRIMARY KEY (chain, seq)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX waiting_customer ON ledger.waiting (customer) WHERE customer IS NOT NULL;
CREATE INDEX waiting_names ON ledger.waiting (names) WHERE kind = 'reversal';

CREATE TABLE ledger.flag (
    store       integer NOT NULL,
    chain       integer NOT NULL,
    id          text NOT NULL,             -- J12, D7: the book, and the entry's number
    flag        text NOT NULL,
    about       bigint,
    external_id text,
    at          timestamptz NOT NULL,
    detail      jsonb NOT NULL,
    resolved_at timestamptz,
    resolved_by text,
    note        text,
    PRIMARY KEY (chain, id)
);
CREATE INDEX flag_open ON ledger.flag (store, at) WHERE resolved_at IS NULL;
CREATE INDEX flag_name ON ledger.flag (flag, at);
CREATE INDEX flag_id ON ledger.flag (store, id);

-- The journal's word may be here before the delivery book's flag that it closes.
CREATE TABLE ledger.resolution (
    store integer NOT NULL,
    flag  text NOT NULL,
    at    timestamptz NOT NULL,
    by    text,
    note  text,
    PRIMARY KEY (store, flag, at)
);

-- A store's day in figures.
CREATE TABLE ledger.day (
    store       integer NOT NULL,
    day         date NOT NULL,
    currency    text NOT NULL,
    sales       bigint NOT NULL,
    total       numeric NOT NULL,
    redemptions bigint NOT NULL,
    redeemed    numeric NOT NULL,
    others      bigint NOT NULL,
    invalid     bigint NOT NULL,
    PRIMARY KEY (day, store, currency)
) WITH (fillfactor = 70);

CREATE TABLE ledger.checkpoint (
    chain  integer NOT NULL,
    seq    bigint NOT NULL,
    at     timestamptz NOT NULL,
    size   bigint NOT NULL,
    root   bytea NOT NULL,
    range  bytea[] NOT NULL,
    signed boolean NOT NULL,
    stands boolean NOT NULL,               -- is it what the entries that are here come to?
    PRIMARY KEY (chain, seq)
);

-- What was found of a store's book that can't be right. It stays open until a person closes it.
CREATE TABLE ledger.finding (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store     integer NOT NULL REFERENCES ledger.store,
    book      text NOT NULL,
    what      text NOT NULL,
    seq       bigint NOT NULL,             -- the first entry that it was found at
    detail    text NOT NULL,
    first_at  timestamptz NOT NULL DEFAULT now(),
    last_at   timestamptz NOT NULL DEFAULT now(),
    times     bigint NOT NULL DEFAULT 1,
    closed_at timestamptz,
    closed_by text,
    note      text
);
CREATE UNIQUE INDEX finding_open ON ledger.finding (store, book, what) WHERE closed_at IS NULL;

-- Partitions for this month and some more; called again and again by whoever lays the schema, or by a timer. A month of which
-- something has come before its partition was made stays where it is, among the others.
CREATE FUNCTION ledger.make_room(months integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    first timestamptz;
    past timestamptz;
    name text;
    part text;
    there boolean;
    made integer := 0;
BEGIN
    FOR ahead IN 0 .. months LOOP
        first := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead)) AT TIME ZONE 'UTC';
        past := ((first AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
        FOREACH name IN ARRAY ARRAY['entry', 'body'] LOOP
            part := name || to_char(first AT TIME ZONE 'UTC', '_YYYY_MM');
            EXECUTE format('SELECT EXISTS (SELECT FROM ledger.%I WHERE received >= %L AND received < %L)',
                name || '_other', first, past) INTO there;
            CONTINUE WHEN there OR to_regclass(format('ledger.%I', part)) IS NOT NULL;
            EXECUTE format('CREATE TABLE ledger.%I PARTITION OF ledger.%I FOR VALUES FROM (%L) TO (%L)',
                part, name, first, past);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
SELECT ledger.make_room(2);
