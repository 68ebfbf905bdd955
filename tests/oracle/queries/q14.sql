-- q14 calculation: filter, CASE over the hour, characters of a text counted with built-in functions
SELECT auction, bidder, 0.908 * price AS price,
  CASE
    WHEN HOUR(rowtime) >= 8 AND HOUR(rowtime) <= 18 THEN 'dayTime'
    WHEN HOUR(rowtime) <= 6 OR HOUR(rowtime) >= 20 THEN 'nightTime'
    ELSE 'otherTime'
  END AS bidTimeType,
  `dateTime`, extra,
  CHAR_LENGTH(extra) - CHAR_LENGTH(REPLACE(extra, 'c', '')) AS c_counts
FROM bid
WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000;
