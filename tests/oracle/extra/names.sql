-- Columns without names, names after aliases, USING, and a column called as a word of SQL.
WITH s(id, `select`) AS (SELECT seller, category + 1 FROM auction)
SELECT id, `select`, UPPER(name), 5 FROM person JOIN s USING (id) WHERE `select` <> 12;
