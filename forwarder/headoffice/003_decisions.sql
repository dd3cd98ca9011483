-- What the head office does by hand. Each is a sentence to psql; none of it can be called by a store.

-- A store may speak from now on: SELECT ledger.enrol('store_0042', 'Bourke Street', 'Melbourne', 'Australia/Melbourne');
-- The role is made by whoever makes roles (CREATE ROLE store_0042 LOGIN PASSWORD …).
CREATE FUNCTION ledger.enrol(of_role name, of_name text, of_region text, of_timezone text DEFAULT 'UTC') RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    made integer;
BEGIN
    PERFORM now() AT TIME ZONE of_timezone;
    INSERT INTO ledger.store (role, name, region, timezone) VALUES (of_role, of_name, of_region, of_timezone)
    ON CONFLICT (role) DO UPDATE SET name = of_name, region = of_region, timezone = of_timezone
    RETURNING id INTO made;
    EXECUTE format('GRANT omneo_store TO %I', of_role);
    RETURN made;
END $$;

-- A finding is seen to.
CREATE FUNCTION ledger.close_finding(of_id bigint, of_by text, of_note text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger.finding SET closed_at = now(), closed_by = of_by, note = of_note WHERE id = of_id AND closed_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no open finding has the number %', of_id;
    END IF;
END $$;

-- Nothing of this store comes until the commit; both books in the order in which ledger.ship locks them.
CREATE FUNCTION ledger.hold(of_role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM ledger.chain AS c JOIN ledger.store AS s ON s.id = c.store
    WHERE s.role = of_role AND c.ended_at IS NULL ORDER BY c.book FOR UPDATE OF c;
END $$;

-- What stands beside a store's entries, derived anew from those that count: after a fork they are others. What waits keeps its
-- customer's hash, which is in no entry; what waits again has none. Of a journal that the store had before, the days' figures
-- are counted again and the rest stays.
CREATE FUNCTION ledger.recount(of_store integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    piece CONSTANT integer := 5000;
    shop ledger.store;
    line ledger.chain;
    known ledger.waiting[] := ARRAY(SELECT w FROM ledger.waiting AS w WHERE w.store = of_store AND w.customer IS NOT NULL);
BEGIN
    SELECT * INTO shop FROM ledger.store WHERE id = of_store;
    DELETE FROM ledger.waiting WHERE store = of_store AND chain NOT IN (SELECT id FROM ledger.counting WHERE former);
    DELETE FROM ledger.flag WHERE store = of_store AND chain NOT IN (SELECT id FROM ledger.counting WHERE former);
    DELETE FROM ledger.resolution WHERE store = of_store;
    DELETE FROM ledger.day WHERE store = of_store;
    PERFORM ledger.mailbox();
    FOR line IN
        SELECT * FROM ledger.chain WHERE id IN (
            SELECT id FROM ledger.counting WHERE store = of_store AND (book = 'journal' OR NOT former))
        ORDER BY book DESC, id
    LOOP
        FOR number IN 0 .. line.seq / piece LOOP
            DELETE FROM pg_temp.mail;
            INSERT INTO pg_temp.mail (seq, at, kind, about, external_id, facts, customer, what)
            SELECT l.seq, convert_to(ledger.stamp(l.at), 'UTF8'), convert_to(l.kind, 'UTF8'), l.about,
                   convert_to(l.external_id, 'UTF8'), convert_to(l.facts, 'UTF8'), k.customer, k.what
            FROM ledger.part AS p JOIN ledger.entry AS l ON l.chain = p.part AND l.seq <= p.upto
            LEFT JOIN unnest(known) AS k ON line.book = 'journal' AND k.seq = l.seq AND k.external_id = l.external_id
            WHERE p.chain = line.id AND l.seq > number * piece::bigint AND l.seq <= (number + 1) * piece::bigint;
            IF line.book = 'journal' THEN
                PERFORM ledger.note_days(shop);
            END IF;
            IF line.ended_at IS NOT NULL THEN
                CONTINUE;
            ELSIF line.book = 'journal' THEN
                PERFORM ledger.note_journal(line, shop);
            ELSE
                PERFORM ledger.note_delivery(line, shop);
            END IF;
        END LOOP;
    END LOOP;
    DELETE FROM pg_temp.mail;
END $$;

-- A store's book forked, and the head office knows why (a backup was restored): from the given entry on, the book that the
-- store has now is the one that counts. What came after that entry before stays here, and can be seen in ledger.given_up.
-- Entry 0: a whole new book, such as a delivery book that was begun anew.
CREATE FUNCTION ledger.accept_fork(of_role name, of_book text, of_seq bigint, of_by text, of_note text) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    line ledger.chain;
    made integer;
BEGIN
    PERFORM ledger.hold(of_role);
    SELECT c.* INTO line FROM ledger.chain AS c JOIN ledger.store AS s ON s.id = c.store
    WHERE s.role = of_role AND c.book = of_book AND c.ended_at IS NULL;
    IF line.id IS NULL OR of_seq NOT BETWEEN 0 AND line.seq THEN
        RAISE EXCEPTION 'the store % has no % with an entry % here', of_role, of_book, of_seq;
    END IF;
    UPDATE ledger.chain SET ended_at = now() WHERE id = line.id;
    INSERT INTO ledger.chain (store, book, parent, seq, digest, seen_at, link, link_since, link_reason)
    VALUES (line.store, line.book, line.id, of_seq, ledger.digest_at(line.id, of_seq), line.seen_at,
            line.link, line.link_since, line.link_reason)
    RETURNING id INTO made;
    INSERT INTO ledger.part
    SELECT made, part, least(upto, of_seq) FROM ledger.part WHERE chain = line.id
    UNION ALL SELECT made, made, 9223372036854775807;
    PERFORM ledger.recount(line.store);
    UPDATE ledger.finding SET closed_at = now(), closed_by = of_by, note = of_note
    WHERE store = line.store AND book = of_book AND closed_at IS NULL;
    RETURN made;
END $$;

-- A store begins with a new journal. What it had stays here and counts: its days' figures, and in ledger.left_open what was
-- never settled, until ledger.close_former says that somebody has seen to it.
CREATE FUNCTION ledger.accept_journal(of_role name, of_journal text, of_by text, of_note text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    shop integer;
BEGIN
    PERFORM ledger.hold(of_role);
    UPDATE ledger.store SET journal = of_journal WHERE role = of_role RETURNING id INTO shop;
    IF shop IS NULL THEN
        RAISE EXCEPTION 'no store has the role %', of_role;
    END IF;
    UPDATE ledger.chain SET ended_at = now() WHERE store = shop AND ended_at IS NULL;
    DELETE FROM ledger.resolution WHERE store = shop;  -- another journal counts its flags from the beginning
    UPDATE ledger.finding SET closed_at = now(), closed_by = of_by, note = of_note WHERE store = shop AND closed_at IS NULL;
END $$;

-- What a store's journals of before had left open has been seen to. How many documents and flags those were.
CREATE FUNCTION ledger.close_former(of_role name, of_by text, of_note text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    former integer[] := ARRAY(
        SELECT c.id FROM ledger.counting AS c JOIN ledger.store AS s ON s.id = c.store WHERE s.role = of_role AND c.former);
    documents bigint;
    flags bigint;
BEGIN
    DELETE FROM ledger.waiting WHERE chain = ANY (former);
    GET DIAGNOSTICS documents = ROW_COUNT;
    UPDATE ledger.flag SET resolved_at = now(), resolved_by = of_by, note = of_note
    WHERE chain = ANY (former) AND resolved_at IS NULL;
    GET DIAGNOSTICS flags = ROW_COUNT;
    RETURN documents + flags;
END $$;

-- A body that no store can have erased any more: of a journal that it had before, or of what it forgot. `of_chain` and `of_seq`
-- as ledger.given_up and ledger.former show them.
CREATE FUNCTION ledger.erase(of_chain integer, of_seq bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM ledger.body WHERE chain = of_chain AND seq = of_seq;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no body of entry % in chain %', of_seq, of_chain;
    END IF;
END $$;

-- Who may do what. Two groups: stores, which may call one function, and readers. All else is the owner's.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'omneo_store') THEN
        CREATE ROLE omneo_store NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'omneo_reader') THEN
        CREATE ROLE omneo_reader NOLOGIN;
    END IF;
END $$;
-- What the server lets everybody do, and a store has no need of: each takes memory, disk or a lock from all the others.
CREATE FUNCTION ledger.everybodys() RETURNS SETOF regprocedure LANGUAGE sql STABLE AS $$
    SELECT oid::regprocedure FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace
      AND (proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'pg_logical_emit_message') OR proname ~ '^pg_(try_)?advisory_')
$$;

-- Nobody makes tables of their own here, passing ones neither, nor large objects, nor holds locks that nobody knows. A line that
-- died is noticed within a minute or two, and gives up the book that it held. Again each time that the schema is looked after: a
-- database's own rights and settings don't come along when it is copied.
CREATE FUNCTION ledger.guard() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    setting record;
    free regprocedure;
BEGIN
    FOR setting IN SELECT name, value FROM (VALUES
        ('idle_in_transaction_session_timeout', '2min'), ('tcp_keepalives_idle', '30'), ('tcp_keepalives_interval', '10'),
        ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '60s'), ('client_connection_check_interval', '10s')
    ) AS wanted (name, value) WHERE name IN (SELECT s.name FROM pg_settings AS s) LOOP
        EXECUTE format('ALTER DATABASE %I SET %I = %L', current_database(), setting.name, setting.value);
    END LOOP;
    FOR free IN SELECT ledger.everybodys() LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', free);
    END LOOP;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO omneo_store, omneo_reader', current_database());
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
END $$;

-- What a store's role may do here besides, because the server lets everybody; nothing, if guard() had the right to stop it.
CREATE FUNCTION ledger.loose() RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT what FROM (VALUES
        ('make tables', has_database_privilege('omneo_store', current_database(), 'TEMP')
            OR has_schema_privilege('omneo_store', 'public', 'CREATE')),
        ('make large objects and hold locks', EXISTS (
            SELECT FROM ledger.everybodys() AS free WHERE has_function_privilege('omneo_store', free, 'EXECUTE'))),
        ('read or change tables', EXISTS (
            SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
              AND has_table_privilege('omneo_store', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'))),
        ('call more than ledger.ship', EXISTS (
            SELECT FROM pg_proc AS p WHERE p.pronamespace = 'ledger'::regnamespace AND p.proname <> 'ship'
              AND has_function_privilege('omneo_store', p.oid, 'EXECUTE')))) AS found (what, may)
    WHERE may
$$;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA ledger TO omneo_store, omneo_reader;
GRANT EXECUTE ON FUNCTION ledger.ship TO omneo_store;
GRANT EXECUTE ON FUNCTION ledger.parsed, ledger.number, ledger.moment, ledger.stamp, ledger.link, ledger.n, ledger.root,
    ledger.root_of, ledger.grown, ledger.checkpoint_under, ledger.digest_at TO omneo_reader;
