-- What the head office reads: the journal's own views (journal/views.sql) of every store, and those of the whole chain.

CREATE VIEW ledger.current AS
SELECT s.id AS store, s.name, s.region, s.timezone, c.id AS chain, c.book, c.seq, c.digest
FROM ledger.store AS s JOIN ledger.chain AS c ON c.store = s.id AND c.ended_at IS NULL;

-- Each entry of the books that count, with its store: of a chain that goes on from another, what is the other's too.
CREATE VIEW ledger.log AS
SELECT s.id AS store, s.name, s.region, c.book, c.id AS chain, e.seq, e.at, e.kind, e.about, e.external_id, e.facts,
       e.body_hash, e.digest, e.received
FROM ledger.entry AS e
JOIN ledger.part AS p ON p.part = e.chain AND e.seq <= p.upto
JOIN ledger.chain AS c ON c.id = p.chain AND c.ended_at IS NULL
JOIN ledger.store AS s ON s.id = c.store;

-- What came and no longer counts: the store forgot it, and the head office has accepted that.
CREATE VIEW ledger.given_up AS
SELECT s.id AS store, s.name, old.book, e.chain, e.seq, e.at, e.kind, e.about, e.external_id, e.facts
FROM ledger.chain AS old
JOIN ledger.store AS s ON s.id = old.store
JOIN ledger.entry AS e ON e.chain = old.id
WHERE old.ended_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM ledger.part AS p JOIN ledger.counting AS c ON c.id = p.chain WHERE p.part = e.chain AND e.seq <= p.upto);

-- The entries of journals that a store had before, and of their delivery books.
CREATE VIEW ledger.former AS
SELECT s.id AS store, s.name, c.book, e.chain, e.seq, e.at, e.kind, e.about, e.external_id, e.facts
FROM ledger.counting AS c
JOIN ledger.store AS s ON s.id = c.store
JOIN ledger.part AS p ON p.chain = c.id
JOIN ledger.entry AS e ON e.chain = p.part AND e.seq <= p.upto
WHERE c.former;

-- What those journals left open: a document that no forwarder settles any more, a flag that no store resolves.
CREATE VIEW ledger.left_open AS
SELECT s.id AS store, s.name, w.kind, w.state AS what, w.external_id, w.at, w.chain, w.seq::text AS number
FROM ledger.waiting AS w JOIN ledger.counting AS c ON c.id = w.chain AND c.former JOIN ledger.store AS s ON s.id = w.store
UNION ALL
SELECT s.id, s.name, 'flag', f.flag, f.external_id, f.at, f.chain, f.id
FROM ledger.flag AS f JOIN ledger.counting AS c ON c.id = f.chain AND c.former JOIN ledger.store AS s ON s.id = f.store
WHERE f.resolved_at IS NULL;

-- The journal's views, of one store or of all: ask for a store, or for an external_id.
CREATE VIEW ledger.documents AS
SELECT d.store, d.name, d.region, d.seq, d.kind, d.external_id,
       CASE WHEN d.kind = 'invalid' THEN 'invalid' WHEN s.kind IS NULL OR s.kind = 'released' THEN 'waiting' ELSE s.kind END
           AS state,
       d.at AS received_at, CASE WHEN s.kind <> 'released' THEN s.at END AS settled_at,
       ledger.parsed(s.facts) ->> 'omneo_id' AS omneo_id,
       ledger.parsed(d.facts) ->> 'terminal' AS terminal, ledger.parsed(d.facts) ->> 'sequence' AS sequence,
       ledger.parsed(d.facts) ->> 'total' AS total, ledger.parsed(d.facts) ->> 'amount' AS amount,
       ledger.parsed(d.facts) ->> 'currency' AS currency,
       coalesce(ledger.parsed(s.facts) ->> 'reason', ledger.parsed(d.facts) ->> 'reason') AS reason,
       s.seq AS settlement
FROM ledger.log AS d
LEFT JOIN LATERAL (
    SELECT w.kind, w.at, w.facts, w.seq FROM ledger.log AS w
    WHERE w.store = d.store AND w.book = 'delivery' AND w.about = d.seq
      AND w.kind IN ('delivered', 'refused', 'held', 'cancelled', 'abandoned', 'released')
    ORDER BY w.seq DESC LIMIT 1) AS s ON true
WHERE d.book = 'journal' AND d.about IS NULL AND d.kind IN ('sale', 'redemption', 'reversal', 'return', 'invalid');

CREATE VIEW ledger.sales AS
SELECT store, name, seq, external_id, terminal, sequence, total, currency, state, received_at, settled_at, omneo_id, reason
FROM ledger.documents WHERE kind = 'sale';

CREATE VIEW ledger.redemptions AS
SELECT d.store, d.name, d.seq, d.external_id, d.terminal, d.amount, d.state, d.received_at,
       ledger.parsed(s.facts) ->> 'created_at' AS created_at, ledger.parsed(s.facts) ->> 'late_s' AS late_s,
       d.omneo_id, d.reason
FROM ledger.documents AS d
LEFT JOIN ledger.log AS s ON s.store = d.store AND s.book = 'delivery' AND s.seq = d.settlement AND s.kind = 'delivered'
WHERE d.kind = 'redemption';

CREATE VIEW ledger.flags AS
SELECT s.id AS store, s.name, s.region, f.id, f.flag, f.external_id, f.about, f.at AS raised_at, f.detail, f.resolved_at,
       f.resolved_by, f.note
FROM ledger.flag AS f JOIN ledger.store AS s ON s.id = f.store;
CREATE VIEW ledger.flags_open AS SELECT * FROM ledger.flags WHERE resolved_at IS NULL;

CREATE VIEW ledger.missing_numbers AS
SELECT store, name, region, detail ->> 'terminal' AS terminal, ledger.number(detail ->> 'from') AS first_missing,
       ledger.number(detail ->> 'to') AS last_missing,
       ledger.number(detail ->> 'to') - ledger.number(detail ->> 'from') + 1 AS how_many,
       raised_at, id AS flag, resolved_at, resolved_by, note
FROM ledger.flags WHERE flag = 'sequence_gap';

CREATE VIEW ledger.late_redemptions AS
SELECT store, name, region, external_id, raised_at, detail ->> 'verdict' AS verdict,
       ledger.number(detail ->> 'seconds') AS seconds, resolved_at
FROM ledger.flags WHERE flag = 'reversal_window_exceeded';

CREATE VIEW ledger.history AS
SELECT store, name, book, seq, at, kind, coalesce(about, seq) AS about, facts FROM ledger.log
WHERE about IS NOT NULL OR (book = 'journal' AND kind IN ('sale', 'redemption', 'reversal', 'return', 'invalid'));

CREATE VIEW ledger.line AS
SELECT store, name, region, seq, at, ledger.parsed(facts) ->> 'link' AS link, ledger.parsed(facts) ->> 'reason' AS reason,
       ledger.parsed(facts) ->> 'since' AS since
FROM ledger.log WHERE book = 'delivery' AND kind = 'line' AND about IS NULL;

CREATE VIEW ledger.outages AS
WITH told AS (SELECT *, lag(link) OVER w AS link_before FROM ledger.line WINDOW w AS (PARTITION BY store ORDER BY seq)),
     turned AS (SELECT *, lead(at) OVER (PARTITION BY store ORDER BY seq) AS next_at
                FROM told WHERE link IS DISTINCT FROM link_before)
SELECT store, name, region, seq, link, coalesce(ledger.moment(since), at) AS began_at, next_at AS ended_at, reason
FROM turned WHERE link IN ('down', 'paused');

CREATE VIEW ledger.decisions AS
SELECT store, name, at, kind AS decision, ledger.parsed(facts) ->> 'by' AS decided_by,
       coalesce(ledger.parsed(facts) ->> 'note', ledger.parsed(facts) ->> 'reason') AS note, about, book, seq
FROM ledger.log
WHERE kind IN ('resolution', 'redaction', 'archived', 'restored', 'released', 'abandoned');

CREATE VIEW ledger.starts AS
SELECT store, name, at, ledger.parsed(facts) ->> 'program' AS program, book, seq FROM ledger.log
WHERE kind = 'opened' AND about IS NULL AND external_id IS NULL;

-- A store at a glance. Silent: it has said nothing to the head office for five minutes, so nothing newer is known of it. For
-- `incomplete_s` not all that it has told of was here.
CREATE VIEW ledger.stores AS
WITH open AS (
    SELECT store, count(*) AS waiting, count(*) FILTER (WHERE state = 'held') AS held, min(at) AS oldest
    FROM ledger.waiting GROUP BY store),
flags AS (SELECT store, count(*) AS flags FROM ledger.flag WHERE resolved_at IS NULL GROUP BY store),
findings AS (SELECT store, string_agg(DISTINCT what, ', ') AS found FROM ledger.finding WHERE closed_at IS NULL GROUP BY store)
SELECT s.id AS store, s.name, s.region,
       CASE WHEN j.seen_at IS NULL THEN 'never seen' WHEN j.seen_at < now() - interval '5 minutes' THEN 'silent'
            ELSE coalesce(d.link, 'unknown') END AS line,
       d.link_since, d.link_reason, j.seen_at, extract(epoch FROM now() - j.seen_at)::bigint AS unseen_s,
       coalesce(open.waiting, 0) AS waiting, coalesce(open.held, 0) AS held,
       open.oldest AS oldest_waiting, extract(epoch FROM now() - open.oldest)::bigint AS oldest_waiting_s,
       greatest(j.told_seq::numeric - j.seq, 0) + greatest(d.told_seq::numeric - d.seq, 0) AS not_here,
       extract(epoch FROM now() - least(j.complete_at, d.complete_at))::bigint AS incomplete_s,
       coalesce(flags.flags, 0) AS open_flags, findings.found, round(j.clock_off_s::numeric, 1) AS clock_off_s,
       j.seq AS journal_entries, d.seq AS delivery_entries
FROM ledger.store AS s
LEFT JOIN ledger.chain AS j ON j.store = s.id AND j.book = 'journal' AND j.ended_at IS NULL
LEFT JOIN ledger.chain AS d ON d.store = s.id AND d.book = 'delivery' AND d.ended_at IS NULL
LEFT JOIN open ON open.store = s.id
LEFT JOIN flags ON flags.store = s.id
LEFT JOIN findings ON findings.store = s.id;

-- Redemptions that tills have granted and Omneo does not have yet, less those that were taken back.
CREATE VIEW ledger.granted AS
SELECT w.* FROM ledger.waiting AS w
WHERE w.kind = 'redemption' AND NOT EXISTS (
    SELECT FROM ledger.waiting AS v
    WHERE v.kind = 'reversal' AND v.names = 'external:' || w.external_id AND v.chain = w.chain);

CREATE VIEW ledger.exposure AS
SELECT s.region, g.currency, count(*) AS redemptions, sum(g.amount) AS value, count(DISTINCT g.customer) AS customers,
       count(DISTINCT g.store) AS stores, min(g.at) AS oldest
FROM ledger.granted AS g JOIN ledger.store AS s ON s.id = g.store GROUP BY s.region, g.currency;

-- One customer in more than one shop: the same reward may have been granted twice. Needs the stores' shared key.
CREATE VIEW ledger.exposure_across_stores AS
SELECT left(encode(customer, 'hex'), 12) AS customer, what, currency, count(*) AS redemptions, sum(amount) AS value,
       count(DISTINCT g.store) AS stores, string_agg(DISTINCT s.name, ', ' ORDER BY s.name) AS shops,
       string_agg(g.external_id, ', ' ORDER BY g.at) AS documents, min(g.at) AS oldest
FROM ledger.granted AS g JOIN ledger.store AS s ON s.id = g.store
WHERE customer IS NOT NULL GROUP BY customer, what, currency HAVING count(DISTINCT g.store) > 1;

-- Days of the last week, closed or why not. A store's day is closed when it is over and all of it is here, when nothing waits
-- and no flag is open that came before its end.
CREATE VIEW ledger.days AS
WITH zones AS MATERIALIZED (  -- once a time zone, not once a store: what a zone's clock says is dear
    SELECT z.timezone, d.day, (d.day + 1)::timestamp AT TIME ZONE z.timezone AS ends
    FROM (SELECT DISTINCT timezone FROM ledger.store) AS z
    CROSS JOIN LATERAL (
        SELECT (now() AT TIME ZONE z.timezone)::date - back AS day FROM generate_series(0, 6) AS back) AS d),
waiting AS (SELECT store, min(at) AS oldest FROM ledger.waiting GROUP BY store),
flags AS (SELECT store, min(at) AS oldest FROM ledger.flag WHERE resolved_at IS NULL GROUP BY store),
sums AS (SELECT store, day, sum(sales) AS sales, sum(redemptions) AS redemptions, sum(invalid) AS invalid
         FROM ledger.day WHERE day >= current_date - 8 GROUP BY store, day),
stores AS (
    SELECT s.id AS store, s.name, s.region, s.timezone, s.enrolled_at,
           -- Up to when everything that it had is here; a delivery book that isn't here yet holds nothing up.
           CASE WHEN d.id IS NULL OR d.complete_at IS NULL THEN j.complete_at ELSE least(j.complete_at, d.complete_at) END AS here,
           waiting.oldest AS waits, flags.oldest AS flagged
    FROM ledger.store AS s
    LEFT JOIN ledger.chain AS j ON j.store = s.id AND j.book = 'journal' AND j.ended_at IS NULL
    LEFT JOIN ledger.chain AS d ON d.store = s.id AND d.book = 'delivery' AND d.ended_at IS NULL
    LEFT JOIN waiting ON waiting.store = s.id
    LEFT JOIN flags ON flags.store = s.id)
SELECT s.store, s.name, s.region, z.day, coalesce(sums.sales, 0) AS sales,
       coalesce(sums.redemptions, 0) AS redemptions, coalesce(sums.invalid, 0) AS invalid,
       CASE WHEN z.ends > now() THEN 'not over'
            WHEN NOT coalesce(s.here > z.ends, false) THEN 'not all here'
            WHEN s.waits < z.ends THEN 'something waits'
            WHEN s.flagged < z.ends THEN 'open flags'
            ELSE 'closed' END AS state
FROM stores AS s
JOIN zones AS z ON z.timezone = s.timezone AND z.ends > s.enrolled_at
LEFT JOIN sums ON sums.store = s.store AND sums.day = z.day;

-- What a store's days came to.
CREATE VIEW ledger.turnover AS
SELECT s.id AS store, s.name, s.region, d.day, d.currency, d.sales, d.total, d.redemptions, d.redeemed, d.others, d.invalid
FROM ledger.day AS d JOIN ledger.store AS s ON s.id = d.store;

-- The head of each book, and the last checkpoint under it.
CREATE VIEW ledger.heads AS
SELECT c.store, c.name, c.region, c.book, c.seq, encode(c.digest, 'hex') AS digest, k.size AS checkpoint, k.at AS checkpoint_at,
       c.seq - k.size AS since_checkpoint, k.signed, k.stands
FROM ledger.current AS c
LEFT JOIN LATERAL (
    SELECT made.* FROM ledger.part AS p CROSS JOIN LATERAL (
        SELECT * FROM ledger.checkpoint WHERE chain = p.part AND seq <= p.upto ORDER BY seq DESC LIMIT 1) AS made
    WHERE p.chain = c.chain ORDER BY made.seq DESC LIMIT 1) AS k ON true;

CREATE VIEW ledger.findings AS
SELECT f.id, s.name, s.region, f.book, f.what, f.seq, f.detail, f.first_at, f.last_at, f.times, f.closed_at, f.closed_by, f.note
FROM ledger.finding AS f JOIN ledger.store AS s ON s.id = f.store;
CREATE VIEW ledger.findings_open AS SELECT * FROM ledger.findings WHERE closed_at IS NULL;

-- One external_id in two stores: it is unique in the whole tenant, so one of the two overwrites the other at Omneo.
CREATE VIEW ledger.same_id AS
SELECT w.external_id, s.name, w.kind, w.at, o.name AS other_store, e.kind AS other_kind, e.at AS other_at
FROM ledger.waiting AS w
JOIN ledger.store AS s ON s.id = w.store
JOIN ledger.entry AS e ON e.external_id = w.external_id AND e.about IS NULL AND e.kind <> 'invalid'
JOIN ledger.chain AS oc ON oc.id = e.chain AND oc.book = 'journal' AND oc.ended_at IS NULL AND oc.store <> w.store
JOIN ledger.store AS o ON o.id = oc.store;

-- The entries of a store's book whose digests are not what the entries come to: computed again, from what stands here.
CREATE FUNCTION ledger.recheck(of_role name, of_book text) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
    SELECT e.seq FROM (
        SELECT l.*, lag(digest, 1, decode(repeat('00', 32), 'hex')) OVER (ORDER BY l.seq) AS before, lag(l.seq, 1, 0::bigint)
                   OVER (ORDER BY l.seq) AS last_seq
        FROM ledger.log AS l JOIN ledger.store AS s ON s.id = l.store WHERE s.role = of_role AND l.book = of_book) AS e
    WHERE e.seq <> e.last_seq + 1 OR e.digest <> ledger.link(e.before, e.seq, convert_to(ledger.stamp(e.at), 'UTF8'),
        convert_to(e.kind, 'UTF8'), e.about, convert_to(e.external_id, 'UTF8'), convert_to(e.facts, 'UTF8'), e.body_hash)
$$;
REVOKE ALL ON FUNCTION ledger.recheck FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.recheck TO omneo_reader;

-- All but the bodies. A partition has rights of its own.
DO $$
DECLARE
    open regclass;
BEGIN
    FOR open IN SELECT oid::regclass FROM pg_class
        WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'p', 'v')
          AND oid <> 'ledger.body'::regclass AND oid NOT IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'ledger.body'::regclass)
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO omneo_reader', open);
    END LOOP;
END $$;
