-- The older way to say windows, and null as a key.
SELECT NULLIF(MOD(seller, 3), 0) AS third, TUMBLE_START(rowtime, INTERVAL '3' SECOND) AS s,
  TUMBLE_ROWTIME(rowtime, INTERVAL '3' SECOND) AS t, COUNT(*) AS n, AVG(NULLIF(category, 10)) AS category
FROM auction GROUP BY TUMBLE(rowtime, INTERVAL '3' SECOND), NULLIF(MOD(seller, 3), 0);
