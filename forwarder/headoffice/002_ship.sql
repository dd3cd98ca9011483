-- The way in. A store's role may call ledger.ship, and nothing else: it reads nothing, changes nothing, and adds only what
-- follows its own last entry.

-- One column as a netstring, as docs/format.md says: NULL is `-,`.
CREATE FUNCTION ledger.n(raw bytea) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN raw IS NULL THEN '-,'::bytea ELSE length(raw)::text::bytea || ':'::bytea || raw || ','::bytea END $$;

CREATE FUNCTION ledger.link(before bytea, seq bigint, at bytea, kind bytea, about bigint, external_id bytea, facts bytea,
    body_hash bytea) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT sha256(before || ledger.n(seq::text::bytea) || ledger.n(at) || ledger.n(kind) || ledger.n(about::text::bytea)
    || ledger.n(external_id) || ledger.n(facts) || ledger.n(body_hash)) $$;

CREATE FUNCTION ledger.stamp(at timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') $$;

-- Facts as PostgreSQL can read them; {} where it can't: the text is the evidence, this only helps to look. Nothing for
-- parallel workers, which may not catch an error before version 17.
CREATE FUNCTION ledger.parsed(facts text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    read jsonb;
BEGIN
    read := facts::jsonb;
    RETURN CASE WHEN jsonb_typeof(read) = 'object' THEN read ELSE '{}' END;
EXCEPTION WHEN data_exception THEN
    RETURN '{}';
END $$;

-- A number that a store says, as long as it is one and no absurd one: what one store says must not break a sum over all.
CREATE FUNCTION ledger.number(said text) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN said ~ '^-?\d{1,18}(\.\d{1,30})?([eE][+-]?\d{1,2})?$' THEN said::numeric END $$;

-- A moment that a store says, likewise.
CREATE FUNCTION ledger.moment(said text) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN said::timestamptz;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;

-- The mailbox into which a store's COPY goes. It is this connection's, is made here, and holds nothing after the commit.
CREATE FUNCTION ledger.mailbox() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('pg_temp.mail') IS NULL THEN
        CREATE TEMP TABLE mail (
            seq bigint, at bytea, kind bytea, about bigint, external_id bytea, facts bytea, body_hash bytea, digest bytea,
            salt bytea, body bytea, customer bytea, what text
        ) ON COMMIT DELETE ROWS;
        EXECUTE format('GRANT INSERT ON pg_temp.mail TO %I', session_user);
    END IF;
    IF (SELECT relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user) OR relkind <> 'r'
        FROM pg_class WHERE oid = 'pg_temp.mail'::regclass) THEN
        RAISE EXCEPTION 'the mailbox is not the ledger''s own' USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;

-- Said in the server's log when it is new, kept until a person closes it.
CREATE FUNCTION ledger.found(of_store integer, of_book text, of_what text, at_seq bigint, words text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    new boolean;
BEGIN
    INSERT INTO ledger.finding AS f (store, book, what, seq, detail) VALUES (of_store, of_book, of_what, at_seq, words)
    ON CONFLICT (store, book, what) WHERE closed_at IS NULL
    DO UPDATE SET times = f.times + 1, last_at = now(), seq = least(f.seq, excluded.seq),
        detail = CASE WHEN excluded.seq < f.seq THEN excluded.detail ELSE f.detail END
    RETURNING xmax = 0 INTO new;
    IF new THEN
        RAISE LOG 'ledger: store %, %: % at entry %: %', of_store, of_book, of_what, at_seq, words;
    END IF;
END $$;

-- The digest of one entry; NULL if it is not here. What came before a fork is the parent's.
CREATE FUNCTION ledger.digest_at(of_chain integer, at_seq bigint) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN at_seq = 0 THEN decode(repeat('00', 32), 'hex') ELSE (
        SELECT e.digest FROM ledger.part AS p JOIN ledger.entry AS e ON e.chain = p.part
        WHERE p.chain = of_chain AND p.upto >= at_seq AND e.seq = at_seq) END
$$;

-- A tree's compact range, grown by the entries that follow it (docs/format.md, "The tree").
CREATE FUNCTION ledger.grown(of_chain integer, from_size bigint, from_range bytea[], to_size bigint) RETURNS bytea[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    row_digest bytea;
    node bytea;
    size bigint := from_size;
    range bytea[] := from_range;
    part bigint;
BEGIN
    FOR row_digest IN
        SELECT e.digest FROM ledger.part AS p JOIN ledger.entry AS e ON e.chain = p.part AND e.seq <= p.upto
        WHERE p.chain = of_chain AND e.seq > from_size AND e.seq <= to_size ORDER BY e.seq
    LOOP
        node := sha256('\x00'::bytea || row_digest);
        part := size;
        WHILE part & 1 = 1 LOOP
            node := sha256('\x01'::bytea || range[cardinality(range)] || node);
            range := range[: cardinality(range) - 1];
            part := part >> 1;
        END LOOP;
        range := range || node;
        size := size + 1;
    END LOOP;
    RETURN CASE WHEN size = to_size THEN range END;
END $$;

CREATE FUNCTION ledger.root_of(range bytea[]) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    root bytea := range[cardinality(range)];
BEGIN
    FOR i IN REVERSE cardinality(range) - 1 .. 1 LOOP
        root := sha256('\x01'::bytea || range[i] || root);
    END LOOP;
    RETURN coalesce(root, sha256(''));
END $$;

-- The last checkpoint of a chain that stands and is over no more than so many entries; before a fork it is the parent's.
CREATE FUNCTION ledger.checkpoint_under(of_chain integer, of_size bigint) RETURNS ledger.checkpoint LANGUAGE sql STABLE AS $$
    SELECT k FROM ledger.part AS p JOIN ledger.checkpoint AS k ON k.chain = p.part AND k.seq <= p.upto
    WHERE p.chain = of_chain AND k.stands AND k.size <= of_size ORDER BY k.size DESC LIMIT 1
$$;

-- The root over the first entries of a chain, to hold a checkpoint against that was taken away.
CREATE FUNCTION ledger.root(of_chain integer, of_size bigint) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT ledger.root_of(ledger.grown(of_chain, coalesce(k.size, 0), coalesce(k.range, '{}'), of_size))
    FROM ledger.checkpoint_under(of_chain, of_size) AS k
$$;

-- Is what the store says of its book what is known of it here? Of an entry that is in no partition any more nothing is known.
CREATE FUNCTION ledger.compared(line ledger.chain, upto bigint, at_seq bigint, at_digest bytea) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    here bytea := ledger.digest_at(line.id, at_seq);
BEGIN
    IF at_seq <= line.seq AND here IS NOT NULL AND here IS DISTINCT FROM at_digest THEN
        PERFORM ledger.found(line.store, line.book, 'fork', at_seq, format(
            'the store''s book is another than the one that came: they differ at entry %s; %s entries are here, and the store'
            ' has %s', at_seq, line.seq, upto));
        RETURN 'fork';
    ELSIF upto < line.seq AND at_seq = upto THEN  -- not of an entry before, when it looks for where a fork began
        PERFORM ledger.found(line.store, line.book, 'shorter', upto, format(
            'the store''s book ends at entry %s, and %s came: it was cut off, or a backup took its place', upto, line.seq));
        RETURN 'shorter';
    END IF;
    RETURN 'ok';
END $$;

-- Are the links that came those that follow the head?
CREATE FUNCTION ledger.linked(line ledger.chain) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    gap bigint;
    broken bigint;
    body bigint;
BEGIN
    SELECT min(m.seq) FILTER (WHERE m.seq IS DISTINCT FROM m.last_seq + 1),
           min(m.seq) FILTER (WHERE m.digest IS DISTINCT FROM ledger.link(
               m.before, m.seq, m.at, m.kind, m.about, m.external_id, m.facts, m.body_hash)),
           min(m.seq) FILTER (WHERE m.body IS NOT NULL AND sha256(m.salt || m.body) IS DISTINCT FROM m.body_hash)
    INTO gap, broken, body
    FROM (SELECT *, lag(mail.seq, 1, line.seq) OVER w AS last_seq, lag(mail.digest, 1, line.digest) OVER w AS before
          FROM pg_temp.mail WINDOW w AS (ORDER BY mail.seq)) AS m;
    IF gap <= coalesce(broken, gap) THEN
        PERFORM ledger.found(line.store, line.book, 'gap', gap, format('entry %s came after entry %s', gap, line.seq));
        RETURN 'gap';
    ELSIF broken IS NOT NULL THEN
        PERFORM ledger.found(line.store, line.book, 'broken', broken, format(
            'entry %s does not follow from what came before it: it was altered, or one before it', broken));
        RETURN 'broken';
    ELSIF body IS NOT NULL THEN
        PERFORM ledger.found(line.store, line.book, 'body', body, format('the body of entry %s was altered', body));
        RETURN 'body';
    END IF;
    RETURN 'ok';
END $$;

-- What a document is worth, of what its entry says.
CREATE FUNCTION ledger.amount(kind text, facts jsonb) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT ledger.number(CASE WHEN kind = 'sale' THEN facts ->> 'total' ELSE facts ->> 'amount' END) $$;

-- The days' figures, with the journal's new entries.
CREATE FUNCTION ledger.note_days(shop ledger.store) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.day AS d
    SELECT shop.id, (at AT TIME ZONE shop.timezone)::date, currency, count(*) FILTER (WHERE kind = 'sale'),
           coalesce(sum(amount) FILTER (WHERE kind = 'sale'), 0), count(*) FILTER (WHERE kind = 'redemption'),
           coalesce(sum(amount) FILTER (WHERE kind = 'redemption'), 0),
           count(*) FILTER (WHERE kind IN ('reversal', 'return')), count(*) FILTER (WHERE kind = 'invalid')
    FROM (SELECT at, kind, ledger.amount(kind, facts) AS amount, coalesce(facts ->> 'currency', '') AS currency
          FROM (SELECT convert_from(at, 'UTF8')::timestamptz AS at, convert_from(kind, 'UTF8') AS kind,
                       ledger.parsed(convert_from(facts, 'UTF8')) AS facts
                FROM pg_temp.mail WHERE about IS NULL) AS m
          WHERE kind IN ('sale', 'redemption', 'reversal', 'return', 'invalid')) AS documents
    GROUP BY 2, 3
    ON CONFLICT (day, store, currency) DO UPDATE SET
        sales = d.sales + excluded.sales, total = d.total + excluded.total,
        redemptions = d.redemptions + excluded.redemptions, redeemed = d.redeemed + excluded.redeemed,
        others = d.others + excluded.others, invalid = d.invalid + excluded.invalid;
END $$;

-- What the journal's new entries mean for what is kept beside them.
CREATE FUNCTION ledger.note_journal(line ledger.chain, shop ledger.store) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH m AS MATERIALIZED (
        SELECT seq, convert_from(at, 'UTF8')::timestamptz AS at, convert_from(kind, 'UTF8') AS kind, about,
               convert_from(external_id, 'UTF8') AS external_id, ledger.parsed(convert_from(facts, 'UTF8')) AS facts,
               customer, what
        FROM pg_temp.mail),
    kept AS (
        INSERT INTO ledger.waiting (chain, seq, store, kind, external_id, at, terminal, amount, currency, names, customer, what)
        SELECT line.id, seq, shop.id, kind, external_id, at, facts ->> 'terminal', ledger.amount(kind, facts),
               coalesce(facts ->> 'currency', ''), facts ->> 'names', customer, what
        FROM m WHERE about IS NULL AND kind IN ('sale', 'redemption', 'reversal', 'return')),
    raised AS (
        INSERT INTO ledger.flag
        SELECT shop.id, line.id, 'J' || m.seq, coalesce(m.facts ->> 'flag', '?'), m.about, m.external_id, m.at,
               m.facts - 'flag', r.at, r.facts ->> 'by', r.facts ->> 'note'
        FROM m LEFT JOIN LATERAL (
            SELECT later.at, later.facts FROM m AS later
            WHERE later.kind = 'resolution' AND later.facts ->> 'flag' = 'J' || m.seq ORDER BY later.seq LIMIT 1) AS r ON true
        WHERE m.kind = 'flag'),
    closed AS (
        UPDATE ledger.flag AS f SET resolved_at = m.at, resolved_by = m.facts ->> 'by', note = m.facts ->> 'note'
        FROM m WHERE m.kind = 'resolution' AND f.store = shop.id AND f.id = m.facts ->> 'flag' AND f.resolved_at IS NULL
          AND f.chain IN (SELECT id FROM ledger.chain WHERE store = shop.id AND ended_at IS NULL))
    INSERT INTO ledger.resolution
    SELECT shop.id, m.facts ->> 'flag', m.at, m.facts ->> 'by', m.facts ->> 'note' FROM m
    WHERE m.kind = 'resolution' AND m.facts ->> 'flag' IS NOT NULL
    ON CONFLICT DO NOTHING;
END $$;

-- What the delivery book's new entries mean: documents settle, the line turns, flags are raised.
CREATE FUNCTION ledger.note_delivery(line ledger.chain, shop ledger.store) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    documents integer;
BEGIN
    SELECT id INTO documents FROM ledger.chain WHERE store = shop.id AND book = 'journal' AND ended_at IS NULL;
    WITH m AS MATERIALIZED (
        SELECT seq, convert_from(at, 'UTF8')::timestamptz AS at, convert_from(kind, 'UTF8') AS kind, about,
               convert_from(external_id, 'UTF8') AS external_id, convert_from(facts, 'UTF8') AS facts
        FROM pg_temp.mail),
    word AS MATERIALIZED (
        SELECT DISTINCT ON (about) about, kind, facts FROM m
        WHERE kind IN ('delivered', 'refused', 'held', 'cancelled', 'abandoned', 'released') AND about IS NOT NULL
        ORDER BY about, seq DESC),
    settled AS (
        DELETE FROM ledger.waiting AS w USING word
        WHERE w.chain = documents AND w.seq = word.about AND word.kind NOT IN ('held', 'released')),
    changed AS (  -- also what had settled and waits again: Omneo has lost it, and somebody has it sent once more
        INSERT INTO ledger.waiting AS w
            (chain, seq, store, kind, external_id, at, terminal, amount, currency, names, state, reason)
        SELECT documents, d.seq, shop.id, d.kind, d.external_id, d.at, d.facts ->> 'terminal', ledger.amount(d.kind, d.facts),
               coalesce(d.facts ->> 'currency', ''), d.facts ->> 'names',
               CASE word.kind WHEN 'held' THEN 'held' ELSE 'waiting' END, ledger.parsed(word.facts) ->> 'reason'
        FROM word JOIN LATERAL (
            SELECT e.seq, e.kind, e.external_id, e.at, ledger.parsed(e.facts) AS facts
            FROM ledger.part AS p JOIN ledger.entry AS e ON e.chain = p.part AND e.seq <= p.upto
            WHERE p.chain = documents AND e.seq = word.about) AS d ON d.kind IN ('sale', 'redemption', 'reversal', 'return')
        WHERE word.kind IN ('held', 'released')
        ON CONFLICT (chain, seq) DO UPDATE SET state = excluded.state, reason = excluded.reason),
    turned AS (
        UPDATE ledger.chain AS c
        SET link = t.facts ->> 'link', link_since = t.at, link_reason = nullif(t.facts ->> 'reason', '')
        FROM (SELECT at, ledger.parsed(facts) AS facts FROM m WHERE kind = 'line' AND about IS NULL
              ORDER BY seq DESC LIMIT 1) AS t
        WHERE c.id = line.id)
    INSERT INTO ledger.flag
    SELECT shop.id, line.id, 'D' || m.seq, coalesce(ledger.parsed(m.facts) ->> 'flag', '?'), m.about, m.external_id, m.at,
           ledger.parsed(m.facts) - 'flag', r.at, r.by, r.note
    FROM m LEFT JOIN LATERAL (
        SELECT * FROM ledger.resolution AS said
        WHERE said.store = shop.id AND said.flag = 'D' || m.seq ORDER BY said.at LIMIT 1) AS r ON true
    WHERE m.kind = 'flag';
END $$;

-- A body that went in the store goes here; a checkpoint is held against what is here.
CREATE FUNCTION ledger.follow(line ledger.chain) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    said record;
    facts jsonb;
    last ledger.checkpoint;
    range bytea[];
    claimed bytea[];
BEGIN
    DELETE FROM ledger.body AS b USING pg_temp.mail AS m, ledger.part AS p
    WHERE m.kind IN ('redaction', 'archived') AND b.seq = m.about
      AND p.chain = line.id AND p.part = b.chain AND p.upto >= b.seq;
    FOR said IN SELECT * FROM pg_temp.mail WHERE kind = 'checkpoint' AND about IS NULL ORDER BY seq LOOP
        facts := ledger.parsed(convert_from(said.facts, 'UTF8'));
        last := ledger.checkpoint_under(line.id, said.seq - 1);
        range := ledger.grown(line.id, coalesce(last.size, 0), coalesce(last.range, '{}'), said.seq - 1);
        claimed := ARRAY(SELECT decode(hash, 'hex') FROM jsonb_array_elements_text(
            CASE jsonb_typeof(facts -> 'range') WHEN 'array' THEN facts -> 'range' ELSE '[]' END)
            WITH ORDINALITY AS each (hash, place) ORDER BY place);
        INSERT INTO ledger.checkpoint VALUES (
            line.id, said.seq, convert_from(said.at, 'UTF8')::timestamptz, coalesce((facts ->> 'size')::bigint, 0),
            decode(coalesce(facts ->> 'root', ''), 'hex'), range, facts ? 'note',
            (facts ->> 'size')::bigint = said.seq - 1 AND range = claimed
                AND decode(facts ->> 'root', 'hex') = ledger.root_of(range));
        IF NOT (SELECT stands FROM ledger.checkpoint WHERE chain = line.id AND seq = said.seq) THEN
            PERFORM ledger.found(line.store, line.book, 'checkpoint', said.seq, format(
                'the checkpoint in entry %s is over other entries than those that came', said.seq));
        END IF;
    END LOOP;
END $$;

-- All that is in the mailbox, or nothing of it.
CREATE FUNCTION ledger.take(line ledger.chain, shop ledger.store) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    verdict text := ledger.linked(line);
    documents bigint;
BEGIN
    IF verdict <> 'ok' THEN
        RETURN verdict;
    END IF;
    IF line.book = 'delivery' THEN
        -- Locked: what the journal says of the delivery book's flags is either here already, or comes after them.
        SELECT seq INTO documents FROM ledger.chain
        WHERE store = shop.id AND book = 'journal' AND ended_at IS NULL FOR SHARE;
        IF (SELECT max(about) FROM pg_temp.mail) > coalesce(documents, 0) THEN
            RETURN 'early';  -- of documents that are not here yet
        END IF;
    END IF;
    INSERT INTO ledger.entry (chain, seq, received, at, about, kind, external_id, facts, body_hash, digest)
    SELECT line.id, seq, now(), convert_from(at, 'UTF8')::timestamptz, about, convert_from(kind, 'UTF8'),
           convert_from(external_id, 'UTF8'), convert_from(facts, 'UTF8'), body_hash, digest
    FROM pg_temp.mail ORDER BY seq;
    IF EXISTS (SELECT FROM pg_temp.mail  -- nor a year of five digits, which readers stumble over
               WHERE ledger.stamp(convert_from(at, 'UTF8')::timestamptz) IS DISTINCT FROM convert_from(at, 'UTF8')
                  OR length(at) IS DISTINCT FROM 24) THEN
        RAISE EXCEPTION 'not the form of a moment' USING ERRCODE = 'invalid_datetime_format';
    END IF;
    IF line.book = 'journal' THEN
        INSERT INTO ledger.body SELECT line.id, seq, now(), salt, body FROM pg_temp.mail WHERE body IS NOT NULL;
        PERFORM ledger.note_days(shop), ledger.note_journal(line, shop);
        PERFORM ledger.follow(line);
    ELSE
        PERFORM ledger.note_delivery(line, shop);
    END IF;
    UPDATE ledger.chain AS c SET seq = m.seq, digest = m.digest, grown_at = now()
    FROM (SELECT seq, digest FROM pg_temp.mail ORDER BY seq DESC LIMIT 1) AS m WHERE c.id = line.id;
    RETURN 'ok';
EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
    PERFORM ledger.found(line.store, line.book, 'unreadable', line.seq + 1, format(
        'what came after entry %s can''t be read (%s): no program of ours wrote it', line.seq, SQLSTATE));
    RETURN 'unreadable';
END $$;

-- The store's chain of this book, locked until the commit. NULL: it is another journal than the one that came first.
CREATE FUNCTION ledger.current_chain(shop ledger.store, of_journal text, of_book text) RETURNS ledger.chain
LANGUAGE plpgsql AS $$
DECLARE
    line ledger.chain;
BEGIN
    IF shop.journal IS NULL THEN
        SELECT * INTO shop FROM ledger.store WHERE id = shop.id FOR UPDATE;  -- somebody may have spoken for it just now
        IF shop.journal IS NULL AND NOT EXISTS (SELECT FROM ledger.store WHERE journal = of_journal) THEN
            UPDATE ledger.store SET journal = of_journal WHERE id = shop.id RETURNING * INTO shop;
        END IF;
    END IF;
    IF shop.journal IS DISTINCT FROM of_journal THEN
        PERFORM ledger.found(shop.id, of_book, 'other journal', 0, format(
            'the store speaks for the journal %s, which is %s', left(of_journal, 64),
            coalesce('not the one that came first: ' || shop.journal, 'another store''s')));
        RETURN NULL;
    END IF;
    SELECT * INTO line FROM ledger.chain WHERE store = shop.id AND book = of_book AND ended_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO ledger.chain (store, book) VALUES (shop.id, of_book)
        ON CONFLICT (store, book) WHERE ended_at IS NULL DO UPDATE SET told_seq = chain.told_seq RETURNING * INTO line;
        INSERT INTO ledger.part VALUES (line.id, line.id, 9223372036854775807) ON CONFLICT DO NOTHING;
    END IF;
    RETURN line;
END $$;

-- A store says: my book of this journal has so many entries, and at this one it has this digest. What it has put into the
-- mailbox in this transaction is taken if it follows. It is told how far its book is here, and the verdict; what was found is in
-- the server's log.
CREATE FUNCTION ledger.ship(of_journal text, of_book text, upto bigint, at_seq bigint, at_digest bytea, clock timestamptz,
    OUT seq bigint, OUT digest bytea, OUT verdict text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET client_min_messages = error AS $$
DECLARE
    shop ledger.store;
    line ledger.chain;
BEGIN
    IF of_book NOT IN ('journal', 'delivery') OR of_journal IS NULL OR of_book IS NULL THEN
        RAISE EXCEPTION 'a store has a journal and a delivery book' USING ERRCODE = 'invalid_authorization_specification';
    END IF;
    SELECT * INTO shop FROM ledger.store WHERE store.role = session_user;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this role is of no store' USING ERRCODE = 'invalid_authorization_specification';
    END IF;
    PERFORM ledger.mailbox();
    line := ledger.current_chain(shop, of_journal, of_book);
    IF line.id IS NULL THEN
        seq := 0;
        verdict := 'other journal';
        RETURN;
    END IF;
    verdict := ledger.compared(line, upto, at_seq, at_digest);
    IF verdict = 'ok' AND EXISTS (SELECT FROM pg_temp.mail) THEN
        verdict := ledger.take(line, shop);
    END IF;
    UPDATE ledger.chain AS c
    SET told_seq = upto, seen_at = now(), clock_off_s = extract(epoch FROM clock - now()),
        complete_at = CASE WHEN verdict = 'ok' AND c.seq = upto THEN now() ELSE c.complete_at END
    WHERE c.id = line.id RETURNING c.seq, c.digest INTO seq, digest;
END $$;
