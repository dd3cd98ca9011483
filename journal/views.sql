-- What an auditor reads: every state is derived here, from the two books, and stored nowhere else.
-- The journal is `main`, the delivery book is attached as `delivery` (an empty one if it is not there).

-- A document's state is the last word on it; 'released' puts one back among the waiting: held, or lost at Omneo.
CREATE TEMP VIEW documents AS
SELECT d.seq,
       d.kind,
       d.external_id,
       CASE WHEN d.kind = 'invalid' THEN 'invalid'
            WHEN s.kind IS NULL OR s.kind = 'released' THEN 'waiting'
            ELSE s.kind END                       AS state,
       d.at                                       AS received_at,
       CASE WHEN s.kind <> 'released' THEN s.at END AS settled_at,
       json_extract(s.facts, '$.omneo_id')        AS omneo_id,
       json_extract(d.facts, '$.terminal')        AS terminal,
       json_extract(d.facts, '$.sequence')        AS sequence,
       json_extract(d.facts, '$.total')           AS total,
       json_extract(d.facts, '$.amount')          AS amount,
       json_extract(d.facts, '$.currency')        AS currency,
       coalesce(json_extract(s.facts, '$.reason'), json_extract(d.facts, '$.reason')) AS reason,
       s.seq                                      AS settlement,
       d.facts                                    AS facts
FROM main.log AS d
LEFT JOIN delivery.log AS s ON s.seq = (
    SELECT max(last.seq) FROM delivery.log AS last
    WHERE last.about = d.seq
      AND last.kind IN ('delivered', 'refused', 'held', 'cancelled', 'abandoned', 'released'))
WHERE d.kind IN ('sale', 'redemption', 'reversal', 'return', 'invalid')
  AND d.about IS NULL;

-- Everything that must or had to be known about a document: J… was raised by the journal, D… by the forwarder.
CREATE TEMP VIEW flags AS
WITH raised (id, flag, external_id, about, raised_at, facts) AS (
    SELECT 'J' || seq, json_extract(facts, '$.flag'), external_id, about, at, facts FROM main.log WHERE kind = 'flag'
    UNION ALL
    SELECT 'D' || seq, json_extract(facts, '$.flag'), external_id, about, at, facts FROM delivery.log WHERE kind = 'flag'
)
SELECT raised.id, raised.flag, raised.external_id, raised.about, raised.raised_at,
       json_remove(raised.facts, '$.flag')   AS detail,
       r.at                                  AS resolved_at,
       json_extract(r.facts, '$.by')         AS resolved_by,
       json_extract(r.facts, '$.note')       AS note
FROM raised
LEFT JOIN main.log AS r ON r.seq = (
    SELECT min(seq) FROM main.log
    WHERE kind = 'resolution' AND json_extract(facts, '$.flag') = raised.id);

CREATE TEMP VIEW flags_open AS SELECT * FROM flags WHERE resolved_at IS NULL;

-- Every entry of both books that is about a document, in the order in which it was written.
CREATE TEMP VIEW history AS
SELECT 'journal' AS book, seq, at, kind, coalesce(about, seq) AS about, facts
FROM main.log WHERE about IS NOT NULL OR kind IN ('sale', 'redemption', 'reversal', 'return', 'invalid')
UNION ALL
SELECT 'delivery', seq, at, kind, about, facts FROM delivery.log WHERE about IS NOT NULL;

-- The line to Omneo, as it went up and down.
CREATE TEMP VIEW line AS
SELECT seq, at, json_extract(facts, '$.link') AS link, json_extract(facts, '$.reason') AS reason,
       json_extract(facts, '$.since')        AS since,
       json_extract(facts, '$.boot')         AS boot,
       json_extract(facts, '$.since_boot_s') AS since_boot_s
FROM delivery.log WHERE kind = 'line' AND about IS NULL AND external_id IS NULL;

-- From when to when nothing could go. The length is by the kernel's clock where that ran on, else by the wall clock.
CREATE TEMP VIEW outages AS
WITH told AS (SELECT *, lag(link) OVER (ORDER BY seq) AS link_before FROM line),
     turned AS (
         SELECT *, lead(at) OVER (ORDER BY seq)           AS next_at,
                   lead(boot) OVER (ORDER BY seq)         AS next_boot,
                   lead(since_boot_s) OVER (ORDER BY seq) AS next_since_boot_s
         FROM told WHERE link IS NOT link_before)
SELECT seq, link, coalesce(since, at) AS began_at, next_at AS ended_at,
       round(86400 * (julianday(at) - julianday(coalesce(since, at)))
             + CASE WHEN boot = next_boot THEN next_since_boot_s - since_boot_s
                    ELSE 86400 * (julianday(next_at) - julianday(at)) END, 1) AS seconds,
       reason
FROM turned WHERE link IN ('down', 'paused');

CREATE TEMP VIEW sales AS
SELECT seq, external_id, terminal, sequence, total, currency, state, received_at, settled_at, omneo_id, reason
FROM documents WHERE kind = 'sale';

-- A redemption with its two clocks: from the till to Omneo (late_s), and from there to its reversal, if there is one.
CREATE TEMP VIEW redemptions AS
SELECT d.seq, d.external_id, d.terminal, d.amount, d.state, d.received_at,
       json_extract(s.facts, '$.created_at') AS created_at,
       json_extract(s.facts, '$.late_s')     AS late_s,
       d.omneo_id, d.reason,
       v.seq AS reversal, v.external_id AS reversal_external_id, v.state AS reversal_state,
       v.settled_at AS reversed_at
FROM documents AS d
LEFT JOIN delivery.log AS s ON s.seq = d.settlement AND s.kind = 'delivered'
LEFT JOIN documents AS v ON v.seq = (
    SELECT max(seq) FROM main.log
    WHERE json_extract(facts, '$.names') = 'external:' || d.external_id AND kind = 'reversal')
WHERE d.kind = 'redemption';

-- Numbers of a terminal that never came, or came late: then their flag is closed.
CREATE TEMP VIEW missing_numbers AS
SELECT json_extract(detail, '$.terminal') AS terminal,
       json_extract(detail, '$.from')     AS first_missing,
       json_extract(detail, '$.to')       AS last_missing,
       json_extract(detail, '$.to') - json_extract(detail, '$.from') + 1 AS how_many,
       raised_at, id AS flag, resolved_at, resolved_by, note
FROM flags WHERE flag = 'sequence_gap';

-- What people (or a program in their place) decided, and why.
CREATE TEMP VIEW decisions AS
WITH decided AS (
    SELECT 'journal' AS book, seq, at, kind, about, facts
    FROM main.log WHERE kind IN ('resolution', 'redaction', 'archived', 'restored')
    UNION ALL
    SELECT 'delivery', seq, at, kind, about, facts FROM delivery.log WHERE kind IN ('released', 'abandoned'))
SELECT x.at, x.kind AS decision, json_extract(x.facts, '$.by') AS decided_by,
       coalesce(json_extract(x.facts, '$.note'), json_extract(x.facts, '$.reason')) AS note,
       json_extract(x.facts, '$.flag') AS flag, d.external_id, x.about, x.book, x.seq
FROM decided AS x LEFT JOIN main.log AS d ON d.seq = x.about;

-- When either program was started.
CREATE TEMP VIEW starts AS
SELECT at, json_extract(facts, '$.program') AS program, 'journal' AS book, seq, json_extract(facts, '$.boot') AS boot
FROM main.log WHERE kind = 'opened' AND about IS NULL AND external_id IS NULL
UNION ALL
SELECT at, json_extract(facts, '$.program'), 'delivery', seq, json_extract(facts, '$.boot')
FROM delivery.log WHERE kind = 'opened' AND about IS NULL AND external_id IS NULL;

-- The delivery book itself, where only the journal's tables can be seen.
CREATE TEMP VIEW delivery_log AS
SELECT seq, at, kind, about, external_id, facts, lower(hex(digest)) AS digest FROM delivery.log;
