-- What an auditor reads: every state is derived here, from the two books, and stored nowhere else.
-- The journal is `main`, the delivery book is attached as `delivery` (an empty one if it is not there).

-- The last word on a document in the delivery book. 'released' puts a held one back among the waiting.
CREATE TEMP VIEW settlements AS
SELECT s.about, s.seq, s.at, s.kind, s.facts
FROM delivery.log AS s
WHERE s.kind IN ('delivered', 'refused', 'held', 'cancelled', 'abandoned', 'released')
  AND s.about IS NOT NULL;

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
       json_extract(d.facts, '$.currency')        AS currency,
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
SELECT seq, at, json_extract(facts, '$.link') AS link, json_extract(facts, '$.reason') AS reason
FROM delivery.log WHERE kind = 'line';
