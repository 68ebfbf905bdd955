-- Sessions of two columns.
SELECT seller, category, window_start, window_end, COUNT(*) AS n, MIN(itemName) AS first_name
FROM TABLE(SESSION(TABLE auction PARTITION BY (seller, category), DESCRIPTOR(rowtime), INTERVAL '2' SECOND))
GROUP BY seller, category, window_start, window_end;
